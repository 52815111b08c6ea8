"""``test RUN_DIR --tasks LIST``: how it is read, and which options belong to the run alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.cli.adding import check_addable
from spd_lightning.cli.names import STAGE_COMMANDS
from spd_lightning.cli.typed import Typed, read_typed
from spd_lightning.errors import UserError
from tests.unit.artifacts.test_runs import begun


def read(*args: str) -> Typed:
    return read_typed(args, STAGE_COMMANDS, [*STAGE_COMMANDS, "report"])


@pytest.mark.parametrize("form", ["before", "behind", "equals"])
def test_a_run_folder_gives_configuration_and_folder(form: str, tmp_path: Path) -> None:
    run = str(begun(tmp_path / "run").path)
    tasks = ["--tasks=[svamp]"] if form == "equals" else ["--tasks", "[svamp]"]
    typed = read("test", *([*tasks, run] if form == "behind" else [run, *tasks]))
    assert typed.run == run and typed.configs == [f"{run}/config.yaml"]
    assert typed.options == {"evaluation.tasks": "[svamp]", "run_dir": run}
    assert typed.args()[:2] == ["test", f"--config={run}/config.yaml"]
    assert typed.rest[0].startswith("--evaluation.tasks") and typed.rest[-1] == f"--run_dir={run}"


def test_other_commands_and_folders_are_told_as_before(tmp_path: Path) -> None:
    run = str(begun(tmp_path / "run").path)
    with pytest.raises(UserError, match="The configuration of a run is named by --config"):
        read("fit", run)
    with pytest.raises(UserError, match=r"is not a run folder: it has no config\.yaml"):
        read("test", str(tmp_path))
    with pytest.raises(UserError, match=r"takes folder and options from that run. Leave --config out"):
        read("test", run, "--config", "demo")
    with pytest.raises(UserError, match="Leave --run_dir out"):
        read("test", run, "--run_dir=x")


@pytest.mark.parametrize("name", ["data.dtype", "seed_everything", "evaluation.adapter", "ckpt_path", "model.lora_r"])
def test_what_belongs_to_the_run_is_not_set(name: str, tmp_path: Path) -> None:
    run = RunFolder(begun(tmp_path / "run").path)
    run.adapter.mkdir()
    check_addable(
        Typed("test", options={"evaluation.limit": "3", "trainer.devices": "1", "run_dir": "x"}),
        run,
        run.configuration(),
    )
    with pytest.raises(UserError, match=f"--{name} cannot be set here"):
        check_addable(Typed("test", options={name: "1"}), run, run.configuration())


def test_a_run_without_its_student_is_finished_first(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    with pytest.raises(UserError, match=r"holds no student yet. Finish it first"):
        check_addable(Typed("test"), run, run.configuration())
    check_addable(Typed("test"), run := begun(tmp_path / "base", method="base"), run.configuration())
