"""The README's commands: each is one that the program knows, and its Python block runs."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from spd_lightning.cli.parser import make_parser
from spd_lightning.cli.program import main
from spd_lightning.cli.typed import read_typed

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
ROOT = Path(__file__).parents[2]


def commands() -> list[list[str]]:
    text = re.sub(r"\\\n\s+", " ", README)
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    found = []
    for line in lines:
        match = re.match(r"(?:torchrun \S+ \S+ -m|python -m) spd_lightning (.*)", line)
        if match and "--" in line and "benchmarks alone" not in line:
            found.append(shlex.split(match[1], comments=True))
    return found


def test_enough_commands_were_found() -> None:
    assert len(commands()) >= 10
    for command in ("make demo", "make test"):
        assert command in README


@pytest.mark.parametrize("args", commands(), ids=" ".join)
def test_command_parses(args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    if args[:2] == ["test", "RUN_DIR"]:  # the options of a run stand in it
        (tmp_path / "config.yaml").write_text("seed_everything: 1\n")
        args = read_typed(["test", str(tmp_path), *args[2:]], ["test"], ["test"]).args()
    assert make_parser().parse_args(args).subcommand == args[0]


@pytest.mark.slow
def test_python_block_runs(smollm2: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert block is not None
    exec(compile(block[1], "README.md", "exec"), {})
    assert (tmp_path / "subspace.safetensors").is_file()


def test_custom_example_is_a_valid_task_file(tmp_path: Path) -> None:
    from spd_lightning.tasks import load_task

    rows = [line.strip() for line in README.splitlines() if line.startswith('    {"prompt"')]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(rows) + "\n")  # all of them in one file, as a reader copies them
    examples = load_task("custom", task_file=str(file)).examples("train")
    texts = [(e.prompt + e.target)[slice(*e.spans[0])] for e in examples]
    assert texts == ["Paris", "Lima"]


@pytest.mark.slow
def test_custom_example_uses_its_completions(smollm2: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's own command on 40 capitals: no completion is lost, and right answers in sentences count."""
    (command,) = [args for args in commands() if "mine.jsonl" in args]
    shutil.copy(ROOT / "tests" / "data" / "capitals.jsonl", tmp_path / "mine.jsonl")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert main([*command, "--run_dir=runs/capitals"]) == 0
    results = json.loads((tmp_path / "runs" / "capitals" / "results.json").read_text())
    assert results["corpus"]["n"] == 32 and results["corpus"]["empty"] < 0.1
    scores = {s["method"]: s["value"] for s in results["scores"] if s["metric"] == "accuracy"}
    assert scores["base"] >= 0.3, scores  # 27 of all 40 hold the capital, greedy in float32, 22 sampled
