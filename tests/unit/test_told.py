"""Mistakes that no other test provokes, each told in words: rows of the table in ``tests/mistakes.json``."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, MambaConfig, T5Config

from spd_lightning import shipped
from spd_lightning.artifacts.files import add_folder, read_jsonl, write_json
from spd_lightning.artifacts.locks import file_lock
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.cli import commands
from spd_lightning.cli.checks import check_store, verify
from spd_lightning.cli.config_file import read_config
from spd_lightning.cli.runs import runs
from spd_lightning.cli.store import artifacts
from spd_lightning.errors import UserError
from spd_lightning.evaluation.context import check_names
from spd_lightning.finetuning.module import SPDFineTuningModule
from spd_lightning.generation.cache import _own_layer
from spd_lightning.model.adapter_beside import load_adapter
from spd_lightning.model.anatomy import decoder_layers
from spd_lightning.model.checkpoint_files import weight_names
from spd_lightning.model.damage import check_files, read_object
from spd_lightning.model.kinds import check_adapter_alone, check_kind, check_quantisation, check_raw
from spd_lightning.model.source import resolve_source
from spd_lightning.options import check_options
from spd_lightning.pipeline import fit
from spd_lightning.pipeline.preflight import check_adapter, check_rounds
from spd_lightning.pipeline.stages import Pipeline
from spd_lightning.subspace.sites import _nothing_known, split_sides
from spd_lightning.sweep import grid, runner
from spd_lightning.tasks import load_task
from spd_lightning.tasks.task_file import TaskFile
from tests.unit.report.test_report import make_run

GRID = "command: [python, '${args}']\nparameters: {a: {values: [1]}}\n"


def in_file(folder: Path, text: str, name: str = "a.yaml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def locked(path: str) -> None:
    with file_lock(path, "The folder"):
        pass


def by_method(folder: Path, method: str) -> Path:
    """A finished run of a method that makes neither subspace nor, without a student, anything else."""
    run = make_run(folder / "run")
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("method: spd", f"method: {method}"))
    for name in ("subspace", "corpus"):
        shutil.rmtree(run / name)
    return run


def without_corpus(folder: Path) -> None:
    run = make_run(folder / "run")
    (run / "corpus" / "generations.jsonl").unlink()
    commands.contamination(str(run))


def few_rows(folder: Path) -> None:
    path = in_file(folder, '{"prompt": "q", "target": "a"}\n', "a.jsonl")
    load_task("custom", task_file={"path": path, "num_fewshot": 1})


def with_config(folder: Path) -> RunFolder:
    return RunFolder(Path(in_file(folder, "a: 1\n", "config.yaml")).parent)


def changed_run(folder: Path) -> None:
    run = with_config(folder)
    run.manifest.write()
    in_file(folder, "a: 2\n", "config.yaml")
    verify(str(folder))


def unfinished_run(folder: Path) -> None:
    with_config(folder).manifest.write()
    verify(str(folder), recompute=True)


def moved_run(folder: Path) -> None:
    in_file(folder, "run_dir: runs/before\n", "config.yaml")
    verify(str(folder))


def no_name(folder: Path) -> None:
    run = with_config(folder)
    write_json(run.manifest.file, {"a\0b": "0"})
    verify(str(folder))


def damaged_store(folder: Path) -> None:
    store = ArtifactStore(folder)
    made = store.folder("corpus", {"seed": 1})
    made.mkdir()
    in_file(made, "a", "a.txt")
    store.complete(made, {"seed": 1})
    in_file(made, "b", "a.txt")
    check_store(store)


def in_a_file(folder: Path) -> None:
    """An artifact whose store is none: what cannot be renamed."""
    (folder / "a").write_text("")
    ArtifactStore(folder).set_aside(folder / "a" / "no", "cut")


def refused_point(folder: Path) -> None:
    def run_all(commands: list[tuple[list[str], Path]]) -> list[int]:
        for _, log in commands:
            log.parent.mkdir(exist_ok=True)
            log.write_text("no such option\n")
        return [2] * len(commands)

    runner.check(grid.read_sweep(in_file(folder, GRID)), SimpleNamespace(map=run_all), folder)


def later_rounds(**recipe: Any) -> None:
    data = SimpleNamespace(recipe=SimpleNamespace(**recipe))
    parts = SimpleNamespace(data=data, student=SimpleNamespace(hparams={"rounds": 2}))
    check_rounds(parts, torch.device("cpu"))


def generate_nothing() -> None:
    data = SimpleNamespace(recipe=SimpleNamespace(method="base"))
    fit.generate(SimpleNamespace(parts=SimpleNamespace(data=data)))


def no_site(**block: nn.Module) -> None:
    model = nn.Linear(2, 2)
    model.config = MambaConfig()  # type: ignore[assignment]
    raise _nothing_known(model, nn.ModuleDict(block), 0, [])


Act = Callable[[Path], Any]
# What is typed or done in a folder, and how the message begins.
TOLD: dict[str, Act] = {
    "2 run folders were given and no --out": lambda p: commands.report(["a", "b"]),
    "{p}/run has no adapter, which --form adapter needs": lambda p: commands.export(
        str(make_run(p / "run")), form="adapter", out=str(p / "out")
    ),
    "{p}/run has no adapter: data.method is base": lambda p: commands.export(
        str(by_method(p, "base")), form="merged", out=str(p / "out")
    ),
    "{p}/run has no subspace/subspace.safetensors: data.method is ssd": lambda p: commands.export(
        str(by_method(p, "ssd")), form="projected", out=str(p / "out")
    ),
    "{p}/run has no corpus: data.method is base": lambda p: commands.contamination(str(by_method(p, "base"))),
    "list takes no run folder, found 'a'": lambda p: runs("list", ["a"], runs_dir=str(p)),
    "list takes no name, found 'demo'": lambda p: commands.configs("list", "demo"),
    "format (--format) and plots (--plots) are both empty": lambda p: commands.report(
        [str(make_run(p / "run"))], format=",", plots=""
    ),
    "compare needs at least two subspaces, found 1": lambda p: commands.compare(["a"]),
    "plot=a.jpg ends in no format of a picture. Set": lambda p: commands.compare(["a", "b"], plot="a.jpg"),
    "limit=-1 asks nothing": lambda p: commands.contamination("a", limit=-1),
    "tasks=[] names no test set": lambda p: commands.contamination("a", tasks=[]),
    "{p}/run has no corpus": without_corpus,
    "workers=0 is below 1": lambda p: commands.sweep("a", workers=0),
    "copy needs a name": lambda p: commands.configs("copy"),
    "Unknown configuration 'dema'. Did you mean 'demo'?": lambda p: shipped.copy("dema"),
    "{p}/demo.yaml is already there": lambda p: shipped.copy("demo", in_file(p, "", "demo.yaml")),
    "/dev/null/x.yaml cannot be written: ": lambda p: shipped.copy("demo", "/dev/null/x.yaml"),
    "/proc/self/mem cannot be read (": lambda p: read_config("/proc/self/mem", (), {}, "fit"),
    "The folder cannot be used: /dev/null/.lock: ": lambda p: locked("/dev/null/.lock"),
    "{p}/a.jsonl, line 2: a JSON object is needed, found list": lambda p: list(
        read_jsonl(in_file(p, "{}\n[]\n", "a.jsonl"))
    ),
    "Cannot write {p}/made: ": lambda p: add_folder(p / "nowhere", p / "made"),
    "run_dir={p} is not empty and holds no run": lambda p: RunFolder(Path(in_file(p, "")).parent).check_owned(),
    "Sweep file nowhere.yaml does not exist": lambda p: grid.read_sweep("nowhere.yaml"),
    "{p}/a.yaml cannot be read as YAML (": lambda p: grid.read_sweep(in_file(p, "a: [")),
    "{p}/a.yaml holds list where a mapping of names to values is needed. Mend": lambda p: grid.read_sweep(
        in_file(p, "- a\n")
    ),
    "{p}/a.yaml cannot be read as YAML (ValueError: ": lambda p: grid.read_sweep(
        in_file(p, "a: &a {a: *a}\nparameters: *a\n")  # it holds itself
    ),
    "{p}/a.yaml: parameters=None, but a sweep needs": lambda p: grid.read_sweep(in_file(p, "b: 1\n")),
    "{p}/a.yaml: parameter a={{'min': 1}} is no list of values": lambda p: grid.read_sweep(
        in_file(p, "parameters: {a: {min: 1}}")
    ),
    "{p}/a.yaml: parameter a holds null": lambda p: grid.read_sweep(in_file(p, "parameters: {a: {values: [null]}}")),
    "{p}/a.yaml: command='x' must be a list": lambda p: grid.read_sweep(
        in_file(p, "parameters: {a: {values: [1]}}\ncommand: x\n")
    ),
    "{p}/a.yaml: config file no.yaml does not exist": lambda p: grid.points(
        grid.read_sweep(in_file(p, GRID.replace("python,", "--config=no.yaml,")))
    ),
    "task_file.num_fewshot=1 leaves none of the 1 training rows": few_rows,
    "Unknown key of task_file 'pth'. Did you mean 'path'?": lambda p: TaskFile.of({"pth": "a"}),
    "{p} is not a run folder: it has no config.yaml": lambda p: verify(str(p)),
    "{p} has no manifest.json: its last command": lambda p: verify(str(with_config(p).path)),
    "{p} is not as it was written: config.yaml was changed": changed_run,
    "{p} holds no run that fit finished, and only such a one": unfinished_run,
    "{p} is not as it was written: 'a\\x00b' is no name of a file": no_name,
    "{p} has no manifest.json: its last command did not end well, so there is nothing to compare with. Go on with: "
    "python -m spd_lightning fit --config {p}/config.yaml --run_dir {p}": moved_run,
    "older_than_days=-1 is no age": lambda p: artifacts("prune", artifact_dir=str(p), older_than_days=-1),
    "1 of 1 artifacts in {p} are damaged": damaged_store,
    "{p}/a/no is damaged (cut) and cannot be set aside": in_a_file,
    "runs_dir={p}/no does not exist": lambda p: runs("list", runs_dir=str(p / "no")),
    "runs_dir={p}/a is a file, not a folder": lambda p: runs("list", runs_dir=in_file(p, "", "a")),
    "artifact_dir={p}/a is a file, not a folder": lambda p: artifacts("list", artifact_dir=in_file(p, "", "a")),
    "artifact_dir={p}/no does not exist": lambda p: artifacts("list", artifact_dir=str(p / "no")),
    "{p}/a.yaml: the command refuses --a=1 (exit status 2):\nno such option": refused_point,
    "Unknown entry of methods 'basis'. Did you mean 'base'?": lambda p: check_names("methods", ["basis"], ["base"]),
    "adapter='{p}/a': that is a file, not a folder": lambda p: check_adapter(in_file(p, "", "a"), "m"),
    "adapter='{p}/no': there is no such folder": lambda p: check_adapter(str(p / "no"), "m"),
    "data.subspace=x is one of the first round's model alone": lambda p: later_rounds(method="spd", subspace="x"),
    "model.rounds=2 with data.engine=vllm in bfloat16 would": lambda p: later_rounds(
        method="ssd", engine="vllm", dtype="bfloat16"
    ),
    "data.method=base generates nothing": lambda p: generate_nothing(),
    "What rank 0 found": lambda p: Pipeline._refuse(SimpleNamespace(), "What rank 0 found"),
    "data.subspace={p}/no: there is no such file": lambda p: Pipeline.use_subspace(SimpleNamespace(), p / "no"),
    # models
    "Linear has multi-head latent attention (MLA)": lambda p: no_site(kv_b_proj=nn.Linear(2, 2)),
    "Linear has no keys and values: none of its layers": lambda p: no_site(mixer=nn.Linear(2, 2)),
    "Layers whose cache is a int cannot generate here": lambda p: _own_layer(3, 8),
    "{p}/a.json is no JSON: ": lambda p: read_object(Path(in_file(p, "nothing", "a.json"))),
    "{p}/a.json holds list where a JSON object is needed": lambda p: read_object(Path(in_file(p, "[]", "a.json"))),
    "{p}/model.safetensors.index.json has no weight_map": lambda p: weight_names(
        Path(in_file(p, "{}", "model.safetensors.index.json")).parent
    ),
    "Linear has no list of decoder layers": lambda p: decoder_layers(nn.Linear(2, 2)),
    "{p}/model.safetensors is empty": lambda p: check_files(
        Path(in_file(p, "", "model.safetensors")).parent, ["model.safetensors"]
    ),
    "model_name_or_path={p} holds an adapter, no model": lambda p: check_adapter_alone(
        Path(in_file(p, '{"base_model_name_or_path": "m"}', "adapter_config.json")).parent
    ),
    "{p}/config.json names no model_type": lambda p: check_raw("m", Path(in_file(p, '{"a": 1}', "config.json"))),
    "model_type='xyz' in {p}/config.json is not known to transformers": lambda p: check_raw(
        "m", Path(in_file(p, '{"model_type": "xyz"}', "config.json"))
    ),
    "model_name_or_path='m' (t5) is an encoder-decoder model": lambda p: check_kind("m", T5Config()),
    "model_name_or_path='m' holds awq weights, which must be dense": lambda p: check_quantisation(
        "m", LlamaConfig(**{"quantization_config": {"quant_method": "awq"}})
    ),
    "model_name_or_path='{p}/a.gguf': there is no such GGUF file": lambda p: resolve_source(str(p / "a.gguf")),
    "model_name_or_path='{p}': the folder has no config.json": lambda p: resolve_source(str(p)),
    "model_name_or_path='{p}': the folder holds no weights": lambda p: resolve_source(
        str(Path(in_file(p, '{"model_type": "llama"}', "config.json")).parent)
    ),
    "model_name_or_path='{p}/no': there is no such folder": lambda p: resolve_source(str(p / "no")),
    "{p} holds no PEFT adapter (adapter_config.json, adapter_model.safetensors is missing)": lambda p: load_adapter(
        nn.Linear(2, 2), p
    ),
    "sides='q' is not known": lambda p: split_sides("q"),
    "model.lora_r='many' is not possible. Set --model.lora_r to ": lambda p: check_options(
        SPDFineTuningModule, {"lora_r": "many"}, "model"
    ),
}


@pytest.mark.parametrize("start", TOLD)
def test_a_mistake_is_told(start: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as told:
        TOLD[start](tmp_path)
    assert str(told.value).startswith(start.format(p=tmp_path))
