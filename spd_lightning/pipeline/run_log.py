"""``metrics.csv`` of a run that is interrupted and goes on: its rows stay, those of repeated steps are replaced."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from spd_lightning.artifacts.files import write_atomic
from spd_lightning.artifacts.reading import reading

BEFORE = "corpus/"  # begins what is logged before the first step, at step 0


class RunLog(ExperimentWriter):
    """Rows of metrics, those of earlier processes first. (Lightning's own deletes them.)

    Args:
        log_dir: Folder of ``metrics.csv`` and ``hparams.yaml``.
    """

    def __init__(self, log_dir: str) -> None:
        path = Path(log_dir) / self.NAME_METRICS_FILE
        self.rows = _read(path)
        self.earlier = len(self.rows)
        self._places = {(row["step"], frozenset(row)): i for i, row in enumerate(self.rows)}
        super().__init__(log_dir)
        self.save()

    def _check_log_dir_exists(self) -> None:
        """What is there stays. (A name of Lightning 2.6.6.)"""

    def log_metrics(self, metrics_dict: dict[str, Any], step: int | None = None) -> None:
        """Add a row, or put it in the place of the one of the same step and names."""
        row = {name: value.item() if hasattr(value, "item") else value for name, value in metrics_dict.items()}
        row["step"] = len(self.rows) if step is None else step
        place = self._places.setdefault((row["step"], frozenset(row)), len(self.rows))
        self.rows[place : place + 1] = [row]

    def cut(self, step: int) -> None:
        """Forget what earlier processes logged of a training from a step on: it is done again."""
        kept = [r for r in self.rows[: self.earlier] if r["step"] < step or any(n.startswith(BEFORE) for n in r)]
        self.rows, self.earlier = kept + self.rows[self.earlier :], len(kept)
        self._places = {(row["step"], frozenset(row)): i for i, row in enumerate(self.rows)}

    def save(self) -> None:
        """Write all rows, whole or not at all."""
        if not self.rows:
            Path(self.metrics_file_path).unlink(missing_ok=True)
            return
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, sorted({name for row in self.rows for name in row}))
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomic(self.metrics_file_path, text.getvalue())


def _read(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.csv, empty cells left out; none where there is no such file."""
    if not path.is_file():
        return []
    with reading(path, "a table of metrics", "Remove it; the run goes on without what was logged."):
        rows = [
            {name: value for name, value in row.items() if value}
            for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
        ]
        return [{**row, "step": int(row["step"])} for row in rows]


class RunLogger(CSVLogger):
    """Lightning's logger with a `RunLog`."""

    @property
    def experiment(self) -> Any:
        """The `RunLog`; made when it is first wanted.

        Ranks:
            Rank 0 only, as Lightning's methods are.
        """
        if self._experiment is None:
            self._experiment = RunLog(self.log_dir)
        return self._experiment


def begin_at(trainer: Trainer, step: int) -> None:
    """Have the run's log know at which optimiser step a training starts.

    Ranks:
        Rank 0 has a log.
    """
    for log in _logs(trainer):
        log.cut(step)


def log_step(trainer: Trainer) -> None:
    """Have the log hold all that was logged up to the step that was just done: a checkpoint of it is being saved.

    Lightning logs a step after its callbacks, so the row may still be due.
    """
    step, every = trainer.global_step, int(getattr(trainer, "log_every_n_steps", 1))
    for log in _logs(trainer):
        values = {name: value for name, value in trainer.callback_metrics.items() if name.startswith("train/")}
        if values and step % every == 0:
            log.log_metrics({**values, "epoch": trainer.current_epoch}, step - 1)
        log.save()


def _logs(trainer: Trainer) -> list[RunLog]:
    if not trainer.is_global_zero:
        return []
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, RunLogger)]
