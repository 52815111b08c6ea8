"""Stage 5: read run folders.

Everything a report shows comes from the files of a run; nothing is measured here.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from spd_lightning.artifacts.expressions import marked
from spd_lightning.artifacts.files import read_jsonl
from spd_lightning.artifacts.reading import absent, reading
from spd_lightning.artifacts.run_folder import REPORT, RunFolder
from spd_lightning.artifacts.settings import flatten, is_compared
from spd_lightning.errors import UserError
from spd_lightning.report.schema import read_results
from spd_lightning.subspace.files import read_safetensors, site_keys
from spd_lightning.tasks import is_generated

COMPUTE = ("spd_lightning", "torch", "lightning", "transformers", "tokenizers", "peft", "numpy")  # what numbers need


@dataclass(frozen=True)
class Spectrum:
    """Singular values of one site.

    Attributes:
        layer: Decoder layer, 0-based.
        side: ``k`` or ``v``.
        values: Singular values of the stacked gradients, falling, shape ``[kv_dim]``.
        rank: Columns of the basis that was kept.
        energy: Share of the squared singular values that the basis holds, 0 to 1.
    """

    layer: int
    side: str
    values: np.ndarray
    rank: int
    energy: float


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        path: The folder.
        config: Every option of the run (``config.yaml``); empty where the file is absent.
        environment: Versions and hardware (``environment.json``); empty where absent.
        results: ``results.json``, checked.
        subspace: Metadata of the subspace file; empty where absent.
        spectra: One entry per site of the subspace, by layer and side.
        keys: What its artifacts were made from (``keys.json``); empty where absent.
        half_done: What a run that was not scored lacks, in a sentence; empty for a finished one.
        changed: What is read here and is not as the run wrote it, a few words each.
    """

    path: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    results: dict[str, Any]
    subspace: dict[str, Any]
    spectra: tuple[Spectrum, ...]
    keys: dict[str, Any] = field(default_factory=dict)
    half_done: str = ""
    changed: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name

    @property
    def scores(self) -> list[dict[str, Any]]:
        """Score rows of ``results.json``."""
        return self.results["scores"]

    @property
    def comparisons(self) -> list[dict[str, Any]]:
        """Comparison rows of ``results.json``."""
        return self.results["comparisons"]

    @property
    def seed(self) -> Any:
        """The run's seed, or None if its config does not say."""
        return self.marked.get("seed_everything")

    @cached_property
    def marked(self) -> dict[str, Any]:
        """Every option; one that was taken from the environment with a hash of its value, which no file holds."""
        return marked(self.config, self.environment.get("values", {}))

    @cached_property
    def conditions(self) -> dict[str, Any]:
        """What the run's numbers depend on, seed aside: options, content, versions, by dotted name."""
        found = options(self.marked)
        corpus, subspace = self.keys.get("corpus") or {}, self.keys.get("subspace") or {}
        moments = subspace.get("moments") or {}
        several = bool(moments) and all(isinstance(key, Mapping) for key in moments.values())
        keys: dict[str, Any] = moments if several else {str(moments.get("task") or corpus.get("task") or ""): moments}
        prompts, versions = corpus.get("prompts") or {}, corpus.get("task_version") or {}
        if not isinstance(prompts, Mapping):
            prompts, versions = ({str(corpus.get("task") or ""): value} for value in (prompts, versions))
        content: dict[str, Any] = {
            "prompts": _content(prompts),
            "calibration": _content({task: key.get("examples") for task, key in keys.items()}),
            "task_version": _content(versions, True)
            or _content({task: key.get("task_version") for task, key in keys.items()}, True),
        }
        if not any(content.values()):  # a run that does not say: then the folder must do
            content = {"data_dir": self.config.get("data_dir")}
        noted = (self.environment.get("content") or {}).get("model")  # all that a run which scores the base alone says
        content["model"] = corpus.get("model") or next(iter(keys.values())).get("model") or noted
        found |= {f"content.{name}": value for name, value in content.items() if value is not None}
        packages = self.environment.get("packages") or {}
        known = {n: packages[n] for n in COMPUTE if n in packages} | (self.environment.get("stages") or {})
        return found | {f"versions.{name}": value for name, value in known.items()}

    def option(self, name: str, default: Any = None) -> Any:
        """An option by its dotted name, e.g. ``subspace.rank``, or another of the `conditions`."""
        if name.startswith(("content.", "versions.")):
            value = self.conditions.get(name, default)
            return value[:8] if isinstance(value, str) and len(value) == 64 else value
        node: Any = self.marked
        for part in name.split("."):
            if not isinstance(node, dict) or part not in node:
                return default
            node = node[part]
        return node

    @cached_property
    def completions(self) -> list[dict[str, Any]]:
        """Records of the generated corpus; empty where there is none."""
        path = RunFolder(self.path).corpus
        return list(read_jsonl(path)) if path.is_file() else []

    @cached_property
    def sample_files(self) -> dict[tuple[str, str], Path]:
        """Files of scored samples by (task, method), in the order of their names."""
        return RunFolder(self.path).sample_files()

    @cached_property
    def _read_samples(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        return {}

    def sample_rows(self, task: str, method: str) -> list[dict[str, Any]]:
        """Scored samples of a benchmark and a method; empty where there are none. A file is read once."""
        which = task, method
        if which not in self._read_samples:
            path = self.sample_files.get(which)
            self._read_samples[which] = [] if path is None else list(read_jsonl(path))
        return self._read_samples[which]

    @property
    def samples(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """Scored samples by (task, method)."""
        return {which: self.sample_rows(*which) for which in self.sample_files}

    @cached_property
    def losses(self) -> dict[str, list[tuple[int, float]]]:
        """Logged losses over optimiser steps, by name (``train/loss``, ``val/loss``); the newest log wins."""
        curves: dict[str, dict[int, float]] = {}
        logs = sorted(RunFolder(self.path).logs.rglob("metrics.csv"), key=lambda p: (p.stat().st_mtime, str(p)))
        for path in logs[-1:]:
            with reading(path, "a table of losses", "Remove it."), open(path, encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    for name, value in row.items():
                        if name and value and row.get("step") and name.split("_")[0] in ("train/loss", "val/loss"):
                            curves.setdefault(name, {})[int(float(row["step"]))] = float(value)
        return {name: sorted(points.items()) for name, points in sorted(curves.items())}


def _content(of_tasks: Mapping[str, Any], drawn: bool = False) -> Any:
    """What a run's tasks hold, by task, of one task as it is; None for nothing.

    Args:
        of_tasks: By task.
        drawn: Whether generated tasks count: rows that the seed draws are other ones for each seed, as they should be.
    """
    found = {task: value for task, value in of_tasks.items() if value and (drawn or not is_generated(task))}
    return found if len(of_tasks) > 1 and found else next(iter(found.values()), None)


def read_run(run_dir: str | Path) -> Run:
    """Read a run folder.

    Raises:
        UserError: If the folder is no run, has no results yet, or holds a file that cannot be read.
    """
    folder = RunFolder(run_dir)
    path, has_config = folder.path, folder.config_file.is_file()
    if not folder.results.is_file():
        if has_config:
            raise UserError(
                f"{path} holds no results.json: its evaluation has not finished. Finish it with: {folder.command()}"
            )
        what = "is not a run folder (no config.yaml, no results.json)" if path.is_dir() else absent(path)
        raise UserError(f"{path} {what}. Give a folder that fit or test wrote, e.g. runs/<name>.")
    results = read_results(folder.results)
    if "runs" in results:
        raise UserError(f"{path} is itself a report over several runs. Give the run folders it was made from.")
    return assemble(folder, results)


def assemble(folder: RunFolder, results: dict[str, Any], half_done: str = "") -> Run:
    """A run of what stands in its folder beside its results.

    Raises:
        UserError: If a file cannot be read.
    """
    metadata, spectra = _read_subspace(folder.subspace)
    small = (folder.configuration(), folder.environment(), results, metadata, spectra, folder.keys())
    not_read = {folder.adapter.name, *REPORT, *(p.path.name for p in folder.rounds())}  # by a report
    changed = folder.manifest.changed(left_out=not_read) or ()
    return Run(folder.path, *small, half_done, tuple(changed))


def _read_subspace(path: Path) -> tuple[dict[str, Any], tuple[Spectrum, ...]]:
    if not path.is_file():
        return {}, ()
    try:
        arrays, metadata = read_safetensors(path, "basis", "numpy")
    except UserError as error:
        raise UserError(f"{path}: not a subspace file ({error}). Extract it again.") from error
    spectra = []
    with reading(path, "a subspace file", "Extract it again."):
        for layer, side in site_keys(arrays, "basis"):
            site = f"layers.{layer}.{side}"
            values, rank = arrays[f"{site}.singular_values"], arrays[f"{site}.basis"].shape[1]
            energy = metadata.get("energy", {}).get(f"{layer}.{side}", _leading_share(values, rank))
            spectra.append(Spectrum(layer, side, values, rank, energy))
    return metadata, tuple(spectra)


def _leading_share(values: np.ndarray, rank: int) -> float:
    squares = np.square(values, dtype=np.float64)
    return float(squares[:rank].sum() / squares.sum()) if squares.sum() > 0 else 0.0


def options(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run computed: its options by dotted name, without those that tell no two configurations apart."""
    return {name: value for name, value in flatten(config).items() if is_compared(name)}
