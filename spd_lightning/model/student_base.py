"""Which model a student belongs to, and the refusal of every other one: the shapes may fit, the numbers are wrong.

What is known of it, the surest first: the run's own record (a fingerprint), the record beside a checkpoint, the base's
name in an adapter's config, the architecture in a checkpoint's config.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spd_lightning.artifacts.files import file_sha256, typed_path
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.store import COMPLETE
from spd_lightning.errors import UserError
from spd_lightning.model.adapter_beside import ADAPTER_CONFIG, read_record
from spd_lightning.model.checkpoint_files import split_revision
from spd_lightning.model.damage import read_object
from spd_lightning.model.source import loadable_name, model_fingerprint, resolve_source, weight_files

ARCHITECTURE = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers")


def check_base_of(student: str | Path, model_name_or_path: str) -> None:
    """Refuse a student of another model.

    Args:
        student: A PEFT folder, or a folder with a whole checkpoint.
        model_name_or_path: The base that it is to be taken with, as the user named it.

    Raises:
        UserError: Naming both models.
    """
    there = other_base(Path(student), model_name_or_path)
    if there is not None:
        raise UserError(
            f"The student in {student} was trained on {there}, not on {model_name_or_path}: its scores and texts would "
            "be of neither. Set model_name_or_path (--subspace.model_name_or_path) to the model it was "
            "trained on, or take a student of "
            "this one."
        )


def other_base(student: Path, model_name_or_path: str) -> str | None:
    """The model that a student was trained on, where that is another one; None where it is not, or nothing tells."""
    recorded = _recorded(student)
    if recorded is not None:
        if recorded == model_fingerprint(model_name_or_path):
            return None
        return _named(student) or f"a model of fingerprint {recorded[:16]}"
    made_of = read_record(student)
    if made_of is not None:
        known = (model_fingerprint(model_name_or_path), _first_base(model_name_or_path))
        return None if made_of.fingerprint in known else made_of.base
    name = _named(student)
    if name is not None:
        return None if _same_model(name, model_name_or_path) else name
    return _other_architecture(student, model_name_or_path)


def _recorded(student: Path) -> str | None:
    """The fingerprint of the base in the record of the run, or of the store, that a student's folder stands in."""
    beside = student.resolve().parent
    record: Any = RunFolder(beside).keys().get("student") if student.name == RunFolder(beside).adapter.name else None
    if record is None and (beside / COMPLETE).is_file():
        record = read_object(beside / COMPLETE)
    key = record.get("key") if isinstance(record, dict) else None
    base = key.get("base") if isinstance(key, dict) else None
    return base if isinstance(base, str) else None


def _named(student: Path) -> str | None:
    """The base's name in an adapter's config."""
    file = student / ADAPTER_CONFIG
    name = read_object(file).get("base_model_name_or_path") if file.is_file() else None
    return str(name) if name else None


def _same_model(there: str, here: str) -> bool:
    """Whether two names stand for one model: the same name, the same content where both are at hand, or, where the one
    named there is not, folders or repositories of the same name (a copy elsewhere)."""
    source = resolve_source(here)[0]
    if there in (here, source, split_revision(here)[0], loadable_name(here)):
        return True
    if (typed_path(there) / "config.json").is_file():
        # tokenizer and decoding defaults may be other ones
        weights = [[file_sha256(p) for p in weight_files(typed_path(f))] for f in (there, source)]
        return weights[0] == weights[1] or model_fingerprint(there) == _first_base(here)
    last = [
        split_revision(name)[0].rstrip("/").rpartition("/")[2].casefold() for name in (there, here, loadable_name(here))
    ]
    return last[0] in last[1:]


def _first_base(model_name_or_path: str) -> str | None:
    """The fingerprint of the model that a student of earlier rounds started from; None for any other model."""
    made_of = read_record(resolve_source(model_name_or_path)[0])
    return None if made_of is None else made_of.fingerprint


def _other_architecture(student: Path, model_name_or_path: str) -> str | None:
    """What a whole checkpoint is, where its architecture or sizes are not those of the base."""
    files = (student / "config.json", Path(resolve_source(model_name_or_path)[0]) / "config.json")
    if not all(file.is_file() for file in files):
        return None
    there, here = map(read_object, files)
    differ = [f"{name} {there.get(name)}" for name in ARCHITECTURE if there.get(name) != here.get(name)]
    return f"a model of another architecture ({', '.join(differ)})" if differ else None
