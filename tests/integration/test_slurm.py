"""The batch script under a stand-in for SLURM: ``srun`` starts the processes by hand, as the real one would."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spd_lightning.cli.parser import make_parser
from spd_lightning.cli.program import main
from tests.integration.test_cli_fit import SETTINGS
from tests.settings import PYTHONPATH

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "configs" / "slurm" / "fit.sbatch"
OPTIONS = [
    *(s for s in SETTINGS if not s.startswith(("--trainer.devices", "--evaluation"))),
    "--evaluation.tasks=[letters]",
    "--evaluation.limit=5",
    "--model.lora_dropout=0",
]

SRUN = """#!/usr/bin/env bash
# Every task of the allocation, with what SLURM tells it; ends with the first failure.
echo "$@" >> {folder}/srun.args
[ "$1" = --kill-on-bad-exit=1 ] && shift
pids=()
for ((i = 0; i < SLURM_NTASKS; i++)); do
    SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_NODEID=0 "$@" & pids+=($!)
done
echo "${{pids[@]}}" > {folder}/pids
for pid in "${{pids[@]}}"; do wait "$pid" || exit $?; done
"""


SCONTROL = """#!/usr/bin/env bash
# What is put back into the queue is ended first.
echo "$@" >> {folder}/scontrol.args
[ ! -f {folder}/pids ] || kill -TERM $(cat {folder}/pids)
"""


def directives() -> dict[str, str]:
    """The ``#SBATCH --name=value`` lines."""
    found = re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
    return dict(found)


def free_port() -> int:
    """A port that nobody has, below those that the system gives to connections meanwhile."""
    for port in range(20000 + os.getpid() % 12000, 32768):
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def submit(folder: Path, *args: str, srun: str = SRUN, tasks: int = 2, fail: str = "") -> subprocess.Popen[str]:
    """What sbatch does: the script with the allocation in its environment; processes fail as ``fail`` says."""
    folder.mkdir(exist_ok=True)
    module = "tests.integration.failing" if fail else "spd_lightning"
    interpreter = f'#!/usr/bin/env bash\nexec {sys.executable} -m {module} "${{@:3}}"\n'
    for name, text in (("srun", srun), ("python", interpreter), ("scontrol", SCONTROL)):
        (folder / name).write_text(text.format(folder=folder) if name != "python" else text)
        (folder / name).chmod(0o755)
    port = free_port()
    allocation = {
        "SLURM_JOB_ID": "4242",
        "SLURM_JOB_NAME": directives()["job-name"],
        "SLURM_NTASKS": str(tasks),
        "SLURM_NTASKS_PER_NODE": str(tasks),
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_NNODES": "1",
        "SLURM_NODELIST": "localhost",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    environment = {**os.environ, **allocation, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": PYTHONPATH}
    environment |= {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "SPD_TEST_FAIL": fail}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(["bash", str(SCRIPT), *args], env=environment, cwd=ROOT, **pipes)  # type: ignore[call-overload]


def test_the_script_asks_for_what_the_run_uses() -> None:
    assert subprocess.run(["bash", "-n", str(SCRIPT)]).returncode == 0
    asked = directives()
    assert asked["ntasks-per-node"] == asked["gpus-per-node"], "one process a GPU"
    assert asked["signal"].startswith("B:USR1@") and "requeue" in asked and asked["open-mode"] == "append"
    text = SCRIPT.read_text(encoding="utf-8").replace("\\\n", " ")
    command = re.search(r"-m spd_lightning (.*?) &", text)
    assert command is not None
    values = {'"$@"': "--config configs/gsm8k.yaml", '"$SLURM_NTASKS_PER_NODE"': "8", '"$SLURM_JOB_NUM_NODES"': "2"}
    line = command[1]
    for name, value in values.items():
        line = line.replace(name, value)
    options = make_parser().parse_args(line.split()).fit.trainer
    assert (int(options.devices), options.num_nodes, options.strategy) == (8, 2, "ddp")


def test_without_options_it_says_how_it_is_used(tmp_path: Path) -> None:
    job = submit(tmp_path / "bin")
    assert "usage: sbatch configs/slurm/fit.sbatch --config FILE" in job.communicate(timeout=30)[1]
    assert job.returncode == 2


def test_the_signal_before_the_limit_puts_the_job_back(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    sleeper = "#!/usr/bin/env bash\necho started > {folder}/started\nsleep 2\nexit 7\n"
    job = submit(folder, "--config", "x.yaml", srun=sleeper)
    deadline = time.monotonic() + 30
    while not (folder / "started").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    job.communicate(timeout=30)
    assert (folder / "scontrol.args").read_text() == "requeue 4242\n"
    assert job.returncode == 7, "the status of the processes is the job's"


@pytest.mark.ddp
def test_two_tasks_give_the_results_of_one_process(
    tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    model = f"--subspace.model_name_or_path={tiny_model_dir}"
    one, two = tmp_path / "one" / "run", tmp_path / "two" / "run"
    assert main(["fit", model, f"--run_dir={one}", *OPTIONS, "--trainer.devices=1"]) == 0
    job = submit(tmp_path / "bin", model, f"--run_dir={two}", *OPTIONS)
    out, error = job.communicate(timeout=240)
    assert job.returncode == 0, error[-3000:]
    assert error.count("All distributed processes registered. Starting with 2 processes") == 1
    moments = [load_file(next((run.parent / ".artifacts").glob("moments-*/*.safetensors"))) for run in (one, two)]
    for name, value in moments[0].items():
        assert (value - moments[1][name]).double().norm() <= 1e-10 * value.double().norm()
    adapters = [load_file(run / "adapter" / "adapter_model.safetensors") for run in (one, two)]
    for name, value in adapters[0].items():
        torch.testing.assert_close(value, adapters[1][name], rtol=1e-3, atol=1e-4)
    assert out.count("Report:") == 1, "one process reports"


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("stage", ["generate", "fine_tune"])
def test_a_job_put_back_into_the_queue_goes_on(tiny_model_dir: str, tmp_path: Path, stage: str) -> None:
    options = [f"--subspace.model_name_or_path={tiny_model_dir}", *OPTIONS, "--data.batch_size=2"]
    options += ["--model.batch_size=2", "--trainer.max_epochs=2"]
    straight, run = tmp_path / "one" / "run", tmp_path / "two" / "run"
    job = submit(tmp_path / "bin", f"--run_dir={straight}", *options)
    _, error = job.communicate(timeout=240)
    assert job.returncode == 0, error[-3000:]

    folder, again = tmp_path / "cut", f"--run_dir={run}"
    job = submit(folder, again, *options, fail=f"{stage}:0:hang,{stage}:1:hang")
    assert job.stderr is not None
    seen = ""
    while not all(f"rank {rank}: hang in {stage}" in seen for rank in (0, 1)):
        line = job.stderr.readline()
        assert line, seen[-3000:]
        seen += line
    job.send_signal(signal.SIGUSR1)
    job.communicate(timeout=60)
    assert (folder / "scontrol.args").read_text() == "requeue 4242\n" and job.returncode != 0
    assert not (run / "results.json").exists()

    job = submit(tmp_path / "bin", again, *options)
    _, error = job.communicate(timeout=240)
    assert job.returncode == 0, error[-3000:]
    for name in ("subspace/subspace.safetensors", "corpus/generations.jsonl", "samples/letters.base.jsonl"):
        assert (run / name).read_bytes() == (straight / name).read_bytes(), name
    adapters = [load_file(path / "adapter" / "adapter_model.safetensors") for path in (straight, run)]
    assert all(torch.equal(value, adapters[1][name]) for name, value in adapters[0].items())
