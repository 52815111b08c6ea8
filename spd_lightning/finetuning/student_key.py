"""What a student depends on, and where it is kept: stage 3's key, as every stage has one.

The key goes into every checkpoint of a run, beside the finished adapter (``keys.json`` of the run folder, with a
checksum of the weights) and names the student's folder in the store.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.files import weights_sha256, whole_folder
from spd_lightning.artifacts.reading import reading
from spd_lightning.artifacts.settings import in_student_key
from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.finetuning.checkpoint_file import read_checkpoint
from spd_lightning.finetuning.texts import TrainingText


def student_key(
    base: str,
    corpus: str,
    train: Sequence[TrainingText],
    val: Sequence[TrainingText],
    hparams: Mapping[str, Any],
    options: Mapping[str, Any],
    processes: int,
    continued_from: str | None = None,
) -> dict[str, Any]:
    """Everything that the trained weights depend on, as JSON values.

    Args:
        base: Fingerprint of the model that is trained.
        corpus: SHA-256 of ``generations.jsonl``.
        train: Texts that are learned.
        val: Texts held out; early stopping and best checkpoints look at them.
        hparams: Of `SPDFineTuningModule`.
        options: The run's configuration. Its trainer's options count but for places; those of the evaluation where a
            callback of the trainer watches a score.
        processes: Their number counts where it changes results: each draws dropout masks of its own.
        continued_from: SHA-256 of another run's checkpoint that training starts from.
    """
    trainer = {n: value for n, value in (options.get("trainer") or {}).items() if in_student_key(f"trainer.{n}")}
    watches = "eval" in json.dumps(trainer.get("callbacks"), default=str)
    dropout = hparams.get("lora_r") is not None and hparams.get("lora_dropout", 0) > 0
    key = {
        "base": base,
        "corpus": corpus,
        "texts": _digest(train),
        "val_texts": _digest(val),
        "model": {n: value for n, value in hparams.items() if in_student_key(f"model.{n}")},
        "trainer": trainer,
        "evaluation": options.get("evaluation") if watches else None,
        "processes": processes if dropout else None,
        "continued_from": continued_from,
    }
    return json.loads(json.dumps(key, default=str))


def _digest(texts: Sequence[TrainingText]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(json.dumps(vars(text)).encode())
    return digest.hexdigest()


def same_student(key: Mapping[str, Any]) -> dict[str, Any]:
    """A key without the number of processes: a run may be continued on another machine."""
    return {name: value for name, value in key.items() if name != "processes"}


def key_of_checkpoint(path: Path) -> dict[str, Any]:
    """The key that a training checkpoint was made under; empty where it has none."""
    advice = "Remove it to start anew."
    saved = read_checkpoint(path, advice)
    with reading(path, "a checkpoint", advice):
        return json.loads((saved.get("spd") or {}).get("recipe") or "{}")


class StudentStore:
    """Finished students in the store that runs share: ``student-<fingerprint>/student/`` and its record.

    Args:
        store: The store.
        key: What the student depends on.
    """

    def __init__(self, store: ArtifactStore, key: Mapping[str, Any]) -> None:
        self.store, self.key = store, key
        self.folder = store.folder("student", key)

    @property
    def path(self) -> Path:
        """Folder of the student itself."""
        return self.folder / "student"

    def has(self) -> bool:
        """Whether the student is there whole; see `ArtifactStore.take`."""
        return self.store.take(self.folder) is not None

    def facts(self) -> dict[str, Any]:
        """``weights_sha256``, ``step`` (optimiser steps it had) and ``read`` (texts learned, cut and left out)."""
        facts = self.store.facts(self.folder)
        return {name: facts[name] for name in ("weights_sha256", "step", "read") if name in facts}

    def keep(self, write: Callable[[Path], Any], step: int | None, read: Mapping[str, int]) -> None:
        """Have a student written, and make it the store's own once it is whole.

        Args:
            write: Writes it into the folder that it is given.
            step: Optimiser steps it was trained for.
            read: See `facts`.

        Ranks:
            Rank 0 only.
        """
        if self.has():  # of another run meanwhile, and the same
            return
        shutil.rmtree(self.folder, ignore_errors=True)  # it has no record
        try:
            with whole_folder(self.folder, shared=True) as aside:
                write(aside / "student")
                digest = weights_sha256(aside / "student")
                self.store.complete(aside, self.key, weights_sha256=digest, step=step, read=dict(read))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not self.has():
                raise
