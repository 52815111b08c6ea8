"""A registered study: one YAML file that fixes everything before the first number, and the cells that follow from it.

``experiments/<name>/study.yaml`` holds hypothesis, contrasts, arms, blocks, n and settings. A *block* is a seed that
all arms share; a *cell* is one arm in one block. The file's SHA-256 is part of every cell's key, so a study that was
changed has other cells. Nothing is run here; see `experiments.run`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from spd_lightning.artifacts.reading import reading
from spd_lightning.errors import UserError, unknown_name

FOLDER = Path(__file__).parent
KEYS = (  # of a study file, all of them needed
    "name",
    "status",
    "hypothesis",
    "primary_contrast",
    "families",
    "smallest_effect",
    "n",
    "blocks",
    "lack_of_time",
    "device",
    "threads",
    "cost",
    "settings",
    "arms",
)
STATUS = ("registered", "not run")
LACK_OF_TIME = "fewer blocks, the last ones first; never other arms or n"


@dataclass(frozen=True)
class Arm:
    """One arm of a study.

    Attributes:
        name: Its name in contrasts and results.
        what: What it is, for a reader.
        options: What it sets over the common settings, by dotted name.
        blocks: Seeds in which it runs, in the study's order: all of them, or those that the arm names.
    """

    name: str
    what: str
    options: Mapping[str, Any]
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class Contrast:
    """A difference that is looked at: that of ``b`` less that of ``a``.

    Attributes:
        a: An arm, which stands for its student (the base where it trains nothing), or ``arm/row`` with a row that the
            arm scores beside it: base, projected, base_3_shots.
        b: The same.
        task: Benchmark; its first metric counts.
    """

    a: str
    b: str
    task: str


@dataclass(frozen=True)
class Family:
    """Contrasts that are corrected together.

    Attributes:
        name: For a reader.
        correction: ``none`` (one contrast), ``holm``, or ``exploratory``: intervals without stars.
        level: Of the family.
        contrasts: In order.
    """

    name: str
    correction: Literal["none", "holm", "exploratory"]
    level: float
    contrasts: tuple[Contrast, ...]


@dataclass(frozen=True)
class Study:
    """A study file, read and checked.

    Attributes:
        path: The file.
        sha256: Of its bytes.
        content: Everything in it, as it was written.
        arms: In order.
        blocks: Seeds, in order.
        families: The primary contrast first, as a family of one, where there is one: a study without claims nothing.
    """

    path: Path
    sha256: str
    content: Mapping[str, Any]
    arms: tuple[Arm, ...]
    blocks: tuple[int, ...]
    families: tuple[Family, ...]

    @property
    def name(self) -> str:
        """That of its folder."""
        return str(self.content["name"])

    @property
    def threads(self) -> int:
        """Threads of a cell (OMP_NUM_THREADS)."""
        return int(self.content["threads"])

    @property
    def device(self) -> str:
        """``cpu`` or ``gpu``, where nobody chooses another; a cell's key has the name of the card."""
        return str(self.content["device"])

    def arm(self, name: str) -> Arm:
        """An arm by its name.

        Raises:
            UserError: If there is none.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise unknown_name("arm", name, [arm.name for arm in self.arms], "--only")

    def cells(self) -> list[tuple[Arm, int]]:
        """Arms and seeds in the order in which they run: block by block, so that what is done is balanced."""
        return [(arm, seed) for seed in self.blocks for arm in self.arms if seed in arm.blocks]

    def config(self, arm: Arm, seed: int, accelerator: str = "cpu") -> dict[str, Any]:
        """The whole configuration of a cell: settings, what is scored, the arm's options, seed and accelerator."""
        options = {
            **_flat(self.content["settings"]),
            "evaluation.tasks": list(self.content["n"]),
            "evaluation.limit": dict(self.content["n"]),
            **arm.options,
            "seed_everything": seed,
            "trainer.accelerator": accelerator,
        }
        nested: dict[str, Any] = {}
        for name, value in options.items():
            *sections, last = name.split(".")
            place = nested
            for section in sections:
                place = place.setdefault(section, {})
            place[last] = value
        return nested


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Sections and their options as dotted names; a value that is a mapping itself stays one."""
    flat = {}
    for section, value in settings.items():
        if section in ("subspace", "data", "model", "trainer", "evaluation"):
            flat.update({f"{section}.{name}": option for name, option in value.items()})
        else:
            flat[section] = value
    return flat


def study_names() -> list[str]:
    """The studies that there are."""
    return sorted(path.parent.name for path in FOLDER.glob("*/study.yaml"))


def read_study(name: str, folder: Path = FOLDER) -> Study:
    """Read ``<folder>/<name>/study.yaml``.

    Raises:
        UserError: If there is none, or it is not whole or contradicts itself.
    """
    path = folder / name / "study.yaml"
    if not path.is_file():
        raise unknown_name("study", name, sorted(p.parent.name for p in folder.glob("*/study.yaml")), "NAME")
    with reading(path, "a study", "Mend it."):
        return _study(path, name)


def _study(path: Path, name: str) -> Study:
    data = path.read_bytes()
    try:
        content = yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({error}). Mend it.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: a study is a mapping with {', '.join(KEYS)}. Mend it.")
    lacking = [key for key in KEYS if key not in content]
    foreign = [str(key) for key in content if key not in KEYS]
    if lacking or foreign:
        raise UserError(f"{path}: lacks {lacking}, and does not know {foreign}. A study has: {', '.join(KEYS)}.")
    if content["name"] != name or content["status"] not in STATUS or content["lack_of_time"] != LACK_OF_TIME:
        raise UserError(
            f"{path}: name={content['name']!r} must be {name!r}, status={content['status']!r} one of "
            f"{', '.join(STATUS)}, and lack_of_time {LACK_OF_TIME!r}. Mend them."
        )
    blocks, n = content["blocks"], content["n"]
    if (
        not _are_counts(blocks)
        or len(set(blocks)) < len(blocks)
        or not isinstance(n, dict)
        or not _are_counts(list(n.values()))
    ):
        raise UserError(f"{path}: blocks={blocks!r} are different seeds, and n={n!r} rows by task. Mend them.")
    arms = tuple(_arm(path, arm, found, blocks) for arm, found in content["arms"].items())
    families, primary = [], content["primary_contrast"]
    if primary is not None:
        families.append(Family("primary", "none", primary.get("level", 0.05), (_contrast(path, primary, arms, n),)))
    for found in content["families"]:
        contrasts = tuple(_contrast(path, contrast, arms, n) for contrast in found["contrasts"])
        if found["correction"] not in ("holm", "exploratory"):
            raise UserError(f"{path}: correction={found['correction']!r} must be holm or exploratory. Mend it.")
        families.append(Family(found["name"], found["correction"], found.get("level", 0.05), contrasts))
    return Study(path, hashlib.sha256(data).hexdigest(), content, arms, tuple(blocks), tuple(families))


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(type(value) is int and value > 0 for value in values)


def _arm(path: Path, name: str, found: Mapping[str, Any], blocks: Sequence[int]) -> Arm:
    """One arm; ``blocks`` in it names those of the study in which it runs."""
    own = found.get("blocks", blocks)
    if set(found) - {"what", "options", "blocks"} or not _are_counts(own) or not set(own) <= set(blocks):
        raise UserError(
            f"{path}: arm {name!r} has what, options and blocks (some of {list(blocks)}), found {dict(found)}. Mend it."
        )
    if not name.replace("_", "").replace("-", "").isalnum():
        raise UserError(f"{path}: arm {name!r} has letters, digits, - and _ alone, for it names files. Mend it.")
    return Arm(
        name,
        str(found.get("what", "")),
        dict(found.get("options") or {}),
        tuple(seed for seed in blocks if seed in own),
    )


def _contrast(path: Path, found: Mapping[str, Any], arms: Sequence[Arm], n: Mapping[str, int]) -> Contrast:
    names = [arm.name for arm in arms]
    for side in ("a", "b"):
        if str(found.get(side)).split("/")[0] not in names:
            raise UserError(f"{path}: contrast {dict(found)} names no arm by {side}. Arms: {', '.join(names)}.")
    if found.get("task") not in n:
        raise UserError(f"{path}: contrast {dict(found)} is on no task of n ({', '.join(n)}). Mend it.")
    return Contrast(found["a"], found["b"], found["task"])
