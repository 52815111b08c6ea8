"""Sweeps: the shipped files as W&B renders them, the command line's parser, and the local runner."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from spd_lightning.cli.program import main
from spd_lightning.errors import UserError
from spd_lightning.sweep import grid, runner

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))

# A stand-in for the package's command line: refuses unknown options, counts its starts, writes a run folder.
PROGRAM = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
options = dict(a[2:].split("=", 1) for a in sys.argv[1:] if a.startswith("--") and "=" in a)
unknown = set(options) - {{"subspace.rank", "subspace.layers", "run_dir", "seed_everything"}}
if unknown:
    sys.exit(f"Option {{unknown}} is not accepted")
if "--print_config" in sys.argv:
    sys.exit(0)
here = Path({here!r})
with open(here / "starts", "a") as file:
    file.write(options["subspace.rank"] + " ")
time.sleep(float((here / "seconds").read_text()) if (here / "seconds").exists() else 0)
if (here / "fail").exists() and options["subspace.rank"] == (here / "fail").read_text():
    sys.exit("rank " + options["subspace.rank"] + " failed on purpose")
from spd_lightning.report import write_results
run = Path(options["run_dir"])
run.mkdir(parents=True, exist_ok=True)
(run / "config.yaml").write_text(json.dumps({{
    "seed_everything": 1, "run_dir": str(run),
    "subspace": {{"rank": int(options["subspace.rank"]), "layers": json.loads(options["subspace.layers"])}}}}))
value = int(options["subspace.rank"]) / 100
score = dict(method="spd", task="t", split="in", protocol="standard", metric="acc", value=value, n=10, stderr=0.1,
             ci95=[0.0, 1.0], seed=1, isolation=None, seconds=1.0)
write_results(run, options["subspace.rank"], "t", "spd", [score], [], [])
"""


def make_sweep(folder: Path, parameters: dict[str, Any] | None = None, **content: Any) -> Path:
    """A sweep of two ranks over the stand-in program."""
    program = folder / "program.py"
    program.write_text(PROGRAM.format(root=str(ROOT), here=str(folder)))
    (folder / "base.yaml").write_text("a: 1\n")
    given = {
        "program": "x",
        "method": "grid",
        "parameters": parameters or {"subspace.layers": {"value": "[0]"}, "subspace.rank": {"values": [4, 8]}},
        "command": ["${env}", "python", str(program), "--config", str(folder / "base.yaml"), "${args}"],
    }
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**given, **content}))
    return path


def starts(folder: Path) -> list[str]:
    return sorted((folder / "starts").read_text().split()) if (folder / "starts").exists() else []


def run(path: Path, *args: str) -> int:
    return main(["sweep", str(path), "--out", str(path.parent / "out"), *args])


def test_shipped_sweeps_are_found() -> None:
    assert [p.name for p in SWEEPS] == ["layers.yaml", "rank.yaml", "rank_layers.yaml"]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_shipped_sweep_is_one_that_wandb_takes(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    assert content["program"] and content["method"] == "grid", "W&B demands both"
    assert content["metric"] == {"name": "eval/gsm8k/exact_match_flexible", "goal": "maximize"}
    for name, spec in content["parameters"].items():
        assert set(spec) == {"values"}, f"{name}: a list of values serves grid and Bayes alike; nested ones do not link"
        assert all(isinstance(v, int | float | str) and v != "None" for v in spec["values"])
    assert len(grid.grid(grid.read_sweep(path).parameters)) == {"rank": 5, "layers": 6, "rank_layers": 12}[path.stem]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_commands_are_those_of_the_wandb_agent(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B's own functions, offline, against ours, for each grid point; Bayes draws from the same lists of values."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    monkeypatch.chdir(ROOT)
    content = yaml.safe_load(path.read_text())
    for options in grid.grid(grid.read_sweep(path).parameters):
        args = create_sweep_command_args({"args": {key: {"value": value} for key, value in options.items()}})["args"]
        expected: list[str] = []
        for part in create_sweep_command(list(content["command"])):
            expected += {"${env}": ["/usr/bin/env"], "${args}": args}.get(part, [part])
        assert grid.render_command(content["command"], options) == expected


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_every_value_of_a_shipped_sweep_parses(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real command line accepts each point, and the printed configuration holds exactly its values."""
    from spd_lightning.cli import program as cli

    monkeypatch.chdir(ROOT)
    for point in grid.cover(grid.points(grid.read_sweep(path))):
        args = point.command[point.command.index("spd_lightning") + 1 :]
        try:
            status = cli.main([*args, "--print_config"])
        except SystemExit as ended:
            status = int(ended.code or 0)
        assert status == 0
        printed = yaml.safe_load(capsys.readouterr().out)
        for name, value in point.options.items():
            node = printed
            for part in name.split("."):
                node = node[part]
            assert node == yaml.safe_load(str(value))


@pytest.mark.slow
def test_check_names_a_key_that_the_command_line_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    content = yaml.safe_load((ROOT / "configs" / "sweeps" / "rank.yaml").read_text())
    content["parameters"] = {"subspace.rnk": {"values": [4, 8]}}
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(content))
    assert run(path, "--check") == 2
    assert "subspace.rnk" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*/config.yaml"))


@pytest.mark.slow
def test_real_points_differ_only_in_the_sweep_and_share_what_they_can(
    tmp_path: Path, tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ranks and two LoRA ranks on the tiny model through the real command line."""
    monkeypatch.chdir(ROOT)
    small = {
        "subspace.model_name_or_path": tiny_model_dir,
        "subspace.num_examples": 4,
        "subspace.max_length": 1024,  # a token is a byte here
        "data.num_prompts": 4,
        "data.max_new_tokens": 8,
        "model.max_length": 1024,
        "evaluation.tasks": "[letters]",
        "evaluation.limit": 4,
    }
    path = tmp_path / "sweep.yaml"
    command = ["${env}", "python", "-m", "spd_lightning", "fit", "--config", "configs/demo.yaml", "${args}"]
    varied = {"subspace.rank": {"values": [4, 8]}, "model.lora_r": {"values": [2, 4]}}
    parameters = {**{k: {"value": v} for k, v in small.items()}, **varied}
    path.write_text(yaml.safe_dump({"program": "x", "method": "grid", "parameters": parameters, "command": command}))
    assert run(path) == 0
    from spd_lightning.report.runs import read_run
    from spd_lightning.report.sweeps import varying_options

    runs = [read_run(tmp_path / "out" / p.name) for p in grid.points(grid.read_sweep(path))]
    assert sorted(varying_options(runs)) == ["model.lora_r", "subspace.rank"]
    skipped = [{s["stage"]: s["skipped"] for s in r.results["stages"]} for r in runs]
    assert [s["extract"] for s in skipped] == [False, True, True, True], "gradients are computed once"
    lora = [r.option("model.lora_r") for r in runs]  # the file lists its options by name: lora_r varies slowest
    assert lora == [2, 2, 4, 4]
    assert [s["generate"] for s in skipped] == [False, False, True, True], "a corpus once per rank, whatever the LoRA"
    assert not any(s["fine_tune"] for s in skipped)
    for r in runs:  # what a sweep's `metric` names, and W&B's own plots show
        header = (r.path / "logs" / "metrics.csv").read_text().splitlines()[0].split(",")
        assert {"eval/letters/acc", "eval_base/letters/acc", "train/loss"} <= set(header)


def test_runs_the_grid_once_and_collects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_sweep(tmp_path)
    assert run(path, "--workers", "2") == 0
    assert starts(tmp_path) == ["4", "8"]
    shown = capsys.readouterr().out
    assert "2 points, 0 already done" in shown and str(tmp_path / "out" / "report" / "report.html") in shown
    results = json.loads((tmp_path / "out" / "report" / "results.json").read_text())
    assert [r["options"]["subspace.rank"] for r in results["runs"]] == [4, 8]
    assert (tmp_path / "out" / "report" / "plots" / "sweep.png").is_file()
    assert run(path) == 0 and starts(tmp_path) == ["4", "8"], "finished points are not run again"
    assert "2 points, 2 already done" in capsys.readouterr().out
    (tmp_path / "base.yaml").write_text("a: 2\n")
    assert run(path) == 0 and starts(tmp_path) == ["4", "4", "8", "8"], "another base configuration is another run"


def test_a_failed_point_stops_no_other_and_is_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_sweep(tmp_path)
    (tmp_path / "fail").write_text("4")
    assert run(path) == 2
    assert "1 of 2 points failed" in (error := capsys.readouterr().err) and "rank 4 failed on purpose" in error
    assert starts(tmp_path) == ["4", "8"] and (tmp_path / "out" / "report" / "report.html").is_file()
    (tmp_path / "fail").unlink()
    assert run(path) == 0
    assert starts(tmp_path) == ["4", "4", "8"]


def test_check_runs_nothing_and_names_the_bad_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_sweep(tmp_path)
    assert run(path, "--check") == 0
    assert "all 2 points are accepted" in capsys.readouterr().out
    bad = make_sweep(tmp_path, {"subspace.rnk": {"values": [4]}})
    assert run(bad, "--check") == 2
    assert "refuses --subspace.rnk=4" in (error := capsys.readouterr().err) and "is not accepted" in error
    assert run(bad) == 2, "the check also stands before every run"
    assert starts(tmp_path) == []


@pytest.mark.slow
def test_a_killed_sweep_ends_its_points_and_resumes(tmp_path: Path) -> None:
    path = make_sweep(tmp_path)
    (tmp_path / "seconds").write_text("60")
    command = [sys.executable, "-m", "spd_lightning", "sweep", str(path), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not starts(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 128 + signal.SIGTERM
    alive = [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in _read(p)]
    assert alive == []
    (tmp_path / "seconds").unlink()
    assert run(path) == 0
    assert starts(tmp_path) == ["4", "4", "8"]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def names(*options: str, **values: list[Any]) -> list[list[str]]:
    combinations = grid.grid({o: v for o, v in zip(options, values.values())})
    every = [grid.Point(o, [], "".join(map(str, o.values()))) for o in combinations]
    return [[p.name for p in wave] for wave in grid.waves(every)]


def test_points_that_share_an_artifact_wait_for_the_one_that_makes_it() -> None:
    ranks = names("subspace.layers", "subspace.rank", a=["[0]", "[1]", "[2]"], b=[4, 8])
    assert ranks == [["[0]4"], ["[0]8", "[1]4", "[2]4"], ["[1]8", "[2]8"]], "gradients once per choice of layers"
    lora = names("subspace.rank", "model.lora_r", a=[4, 8], b=[1, 2])
    assert lora == [["41"], ["42", "81"], ["82"]], "a corpus once per rank, whatever the LoRA"
    protocols = names("evaluation.protocol", "model.lora_r", a=["standard", "paper"], b=[1, 2])
    assert protocols == [["standard1"], ["standard2", "paper1"], ["paper2"]], "base scores once per protocol"
    assert names("subspace.rank", a=[4]) == [["4"]] and grid.waves([]) == []


def test_cover_holds_every_value() -> None:
    every = [grid.Point(o, [], "") for o in grid.grid({"a": [1, 2, 3], "b": ["x", "y"]})]
    chosen = grid.cover(every)
    assert {(k, v) for p in chosen for k, v in p.options.items()} == {
        *(("a", i) for i in (1, 2, 3)),
        ("b", "x"),
        ("b", "y"),
    }
    assert len(chosen) < len(every)


def test_workers_share_out_devices_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    three = runner.Runner(3)
    assert [three._environment(i)["CUDA_VISIBLE_DEVICES"] for i in range(3)] == ["3", "5", "3"]
    assert three._environment(0)["OMP_NUM_THREADS"] == str(max(1, (os.cpu_count() or 1) // 3))
    assert three._environment(0)["PATH"].startswith(str(Path(sys.executable).parent))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"parameters": None}, "parameters=None"),
        ({"parameters": {"subspace.rank": {"min": 1, "max": 9}}}, r"parameter subspace\.rank=.*'min': 1"),
        ({"parameters": {"subspace.rank": {"values": []}}}, r"subspace\.rank=.*is no list of values"),
        ({"parameters": {"subspace.rank": {"values": [4, None]}}}, r"subspace\.rank holds null"),
        ({"command": ["python", "${args_no_hyphens}"]}, r"args_no_hyphens.*must be a list that holds \$\{args\}"),
        ({"command": None}, "command=None"),
    ],
)
def test_malformed_sweep_is_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    path = make_sweep(tmp_path)
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **content}))
    with pytest.raises(UserError, match=message):
        grid.read_sweep(path)


def test_missing_files_and_a_bad_number_of_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", str(tmp_path / "absent.yaml")]) == 2
    assert "absent.yaml does not exist" in capsys.readouterr().err
    path = make_sweep(tmp_path)
    assert run(path, "--workers", "0") == 2
    assert "workers=0 is below 1" in capsys.readouterr().err
    (tmp_path / "base.yaml").unlink()
    assert run(path) == 2
    assert "base.yaml does not exist" in capsys.readouterr().err
    path.write_text("a: [")
    assert run(path) == 2
    assert f"{path} cannot be read as YAML (" in capsys.readouterr().err


def test_a_sweep_folder_is_used_by_one_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from spd_lightning.artifacts.locks import file_lock

    path = make_sweep(tmp_path)
    with file_lock(tmp_path / "out" / ".sweep" / "lock", "test"):
        assert run(path) == 2
    assert "is in use by another process" in capsys.readouterr().err
