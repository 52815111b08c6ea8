"""What starts in a moment: what it may import, what it costs, and that it says what the whole program says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spd_lightning import __version__
from spd_lightning.cli import program, start
from tests.settings import PYTHONPATH
from tests.unit.report.test_report import make_run

ROOT = Path(__file__).parents[3]
WHOLE = {"torch", "lightning", "transformers", "peft", "datasets", "evaluate", "torchmetrics", "wandb", "scipy"}
SEEN = """
import sys
before = set(sys.modules)
from spd_lightning.cli.start import main
try:
    status = main(sys.argv[1:])
except SystemExit as ended:
    status = ended.code
new = {name for name in set(sys.modules) - before if name.split(".")[0] not in sys.stdlib_module_names}
print(status, *sorted(new), file=sys.stderr)
"""


def started(*args: str, code: str = SEEN, **environ: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """A process of its own, and its CPU seconds."""
    before = os.times()
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, **environ}
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, env=environment)
    after = os.times()
    return done, after.children_user + after.children_system - before.children_user - before.children_system


def test_what_version_may_import() -> None:
    done, seconds = started("--version")
    assert done.stdout == f"spd_lightning {__version__}\n"
    status, *modules = done.stderr.split()
    assert status == "0" and seconds < 1
    assert set(modules) == {"spd_lightning", "spd_lightning.cli", "spd_lightning.cli.start", "spd_lightning.errors"}


@pytest.mark.parametrize(
    ("args", "status", "shown"),
    [
        (["--help"], 0, "Self-Policy Distillation"),
        (["fit", "--help"], 0, "--data.num_prompts"),
        (["sample", "--help"], 0, "Complete prompts with the base"),
        (["runs", "list", "--runs_dir", "."], 0, "No run in ."),
        (["runs", "lst"], 2, "Did you mean 'list'?"),
        (["configs", "list"], 0, "paper/gsm8k"),
        (["artifacts", "list", "--artifact_dir", "."], 0, ""),
        (["fitt"], 2, "Did you mean fit?"),
        ([], 2, "A command is missing"),
        (["fit", "--data.num_promts=3"], 2, "Did you mean --data.num_prompts?"),
        (["test", "--evaluation.tsks", "x"], 2, "Did you mean --evaluation.tasks?"),
        (["export", "runs/x", "--out=o"], 2, "--form must be given"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_second_to_start(args: list[str], status: int, shown: str, tmp_path: Path) -> None:
    code = f"import os; os.chdir({str(tmp_path)!r})\n{SEEN}"
    done, seconds = started(*args, code=code)
    assert shown in done.stdout + done.stderr and "Traceback" not in done.stderr
    last, *modules = done.stderr.splitlines()[-1].split()
    assert last == str(status) and seconds < 1
    assert not {name.split(".")[0] for name in modules} & WHOLE


def test_a_report_with_plots_loads_no_model(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    done, seconds = started("report", str(run), "--out", str(tmp_path / "out"))
    status, *modules = done.stderr.splitlines()[-1].split()
    assert status == "0" and len(list((tmp_path / "out" / "plots").glob("*.png"))) >= 3
    assert not {name.split(".")[0] for name in modules} & WHOLE and seconds < 2.5


def test_a_run_in_full_costs_a_second(tmp_path: Path) -> None:
    """With its table; of the plots' library nothing is loaded."""
    done, seconds = started("runs", "show", str(make_run(tmp_path / "run")))
    status, *modules = done.stderr.splitlines()[-1].split()
    assert status == "0" and "exact_match_flexible" in done.stdout and seconds < 1
    assert not {name.split(".")[0] for name in modules} & {*WHOLE, "matplotlib"}


MISTAKES = [
    ["fitt"],
    [],
    ["fit", "--data.num_prom=3"],
    ["extract", "--subspace.rnk", "4"],
    ["export", "runs/x", "--form=mergd", "--out=o"],
    ["report"],
]


@pytest.mark.parametrize("args", MISTAKES, ids=" ".join)
def test_a_mistake_is_told_in_the_words_of_the_whole_program(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(args) == 2
    expected = capsys.readouterr().err
    assert start.main(args) == 2
    assert capsys.readouterr().err == expected


def test_without_the_file_the_whole_program_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spd_lightning.cli.option_table.load", lambda: None)
    monkeypatch.setattr(program, "main", lambda args: 7)
    assert start.main(["fit", "--data.num_promts=3"]) == 7


def test_output_that_an_encoding_does_not_hold(tmp_path: Path) -> None:
    code = f"import os; os.chdir({str(tmp_path)!r})\n{SEEN}"
    done, _ = started("configs", "copy", "demo", "--out", "größe.yaml", code=code, PYTHONIOENCODING="ascii")
    assert done.stdout == "Copied: gr\\xf6\\xdfe.yaml\n" and (tmp_path / "größe.yaml").is_file()


def test_nobody_reads_on(tmp_path: Path) -> None:
    command = f"{sys.executable} -m spd_lightning fit --help | head -1; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.stdout.startswith("usage: ") and done.stderr == "" and done.returncode in (0, 141)
