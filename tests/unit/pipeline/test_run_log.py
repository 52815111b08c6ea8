"""metrics.csv of a run that goes on is that of a run that was never interrupted."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from spd_lightning.errors import UserError
from spd_lightning.pipeline.run_log import RunLog


def rows(folder: Path) -> list[dict[str, Any]]:
    with open(folder / "metrics.csv", newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def train(log: RunLog, start: int, end: int) -> None:
    for step in range(start, end):
        log.log_metrics({"train/loss": torch.tensor(1.0 / (step + 1)), "epoch": step // 4}, step)
        if step % 4 == 3:
            log.log_metrics({"val/loss": 2.0 / step, "epoch": step // 4}, step)


def test_an_interrupted_log_is_that_of_a_straight_one(tmp_path: Path) -> None:
    straight = RunLog(str(tmp_path / "straight"))
    straight.log_metrics({"corpus/n": 6.0}, 0)
    train(straight, 0, 12)
    straight.log_metrics({"letters/acc": 0.5}, 12)
    straight.save()

    first = RunLog(str(tmp_path / "other"))
    first.log_metrics({"corpus/n": 6.0}, 0)
    train(first, 0, 7)  # its checkpoint was of step 5
    first.save()
    second = RunLog(str(tmp_path / "other"))
    second.log_metrics({"corpus/n": 6.0}, 0)  # logged again: the student is not there yet
    second.cut(5)
    train(second, 5, 12)
    second.log_metrics({"letters/acc": 0.5}, 12)
    second.save()
    third = RunLog(str(tmp_path / "other"))  # scores alone
    third.log_metrics({"letters/acc": 0.5}, 12)
    third.save()
    assert rows(tmp_path / "other") == rows(tmp_path / "straight") and len(rows(tmp_path / "other")) == 17


def test_a_training_that_starts_anew_forgets_the_one_before(tmp_path: Path) -> None:
    log = RunLog(str(tmp_path))
    log.log_metrics({"corpus/n": 6.0}, 0)
    train(log, 0, 3)
    log.save()
    log = RunLog(str(tmp_path))
    log.cut(0)
    log.save()
    assert rows(tmp_path) == [{"corpus/n": "6.0", "step": "0"}]
    log.log_metrics({"train/loss": 1.0}, 0)
    log.log_metrics({"train/loss": 3.0}, 0)  # the same step once more: a checkpoint was saved before it was logged
    log.save()
    assert rows(tmp_path)[1:] == [{"train/loss": "3.0", "step": "0"}]


@pytest.mark.parametrize("content", [b"step\nx\n", b"\xff\xfe", b"a,b\n1,2\n"])
def test_a_damaged_log_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"metrics.csv cannot be read as a table of metrics .* Remove it"):
        RunLog(str(tmp_path))


def test_a_full_disk_takes_no_row_that_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RunLog(str(tmp_path))
    train(log, 0, 3)
    log.save()
    before = (tmp_path / "metrics.csv").read_bytes()

    def full(*_: Any) -> None:
        raise UserError("No space left on device")

    monkeypatch.setattr("spd_lightning.pipeline.run_log.write_atomic", full)
    with pytest.raises(UserError, match="No space"):
        RunLog(str(tmp_path))
    assert (tmp_path / "metrics.csv").read_bytes() == before
    monkeypatch.undo()
    log = RunLog(str(tmp_path))
    log.cut(0)
    log.save()
    assert not (tmp_path / "metrics.csv").exists(), "nothing of it is left"
