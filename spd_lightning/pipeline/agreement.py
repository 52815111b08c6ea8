"""Whether two runs of the same settings did the same arithmetic, on one process and on several, say.

Behind ``fit --check_against RUN_DIR``. The run extracts for itself, then takes the other run's subspace file, so that
every artifact is compared given the same input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from spd_lightning.artifacts.expressions import marked, value_of
from spd_lightning.artifacts.files import read_jsonl
from spd_lightning.artifacts.reading import reading
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.settings import differences, settings_of
from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.errors import UserError
from spd_lightning.processes import agree
from spd_lightning.report.render import Table
from spd_lightning.report.runs import read_run
from spd_lightning.subspace.kept import KeptMoments
from spd_lightning.subspace.mixture import mixed
from spd_lightning.subspace.moments import Moments
from spd_lightning.subspace.subspace import CapabilitySubspace

# Relative difference of the moments. The same batches are the same arithmetic on every process; only the order in which
# float64 sums are added differs. On a GPU attention adds its gradients in no fixed order, in the dtype of the forward.
MOMENTS_CPU = 1e-10
MOMENTS_GPU = {"float32": 1e-5, "bfloat16": 1e-2}
ENERGY = 1e-6  # difference in the share of one run's energy that the two bases capture
AGAIN = "Make that run again, or put the file back."
ADAPTER = 1e-3  # relative; the gradient's last bits differ, and Adam divides by its size


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        artifact: What was compared.
        measure: Which difference was taken.
        value: The difference.
        bound: Largest one allowed; None where the figure is for information.
    """

    artifact: str
    measure: str
    value: float
    bound: float | None = 0.0

    @property
    def holds(self) -> bool:
        """Whether the bound is kept (not a number is not)."""
        return self.bound is None or self.value <= self.bound


class Reference:
    """The run that another is checked against.

    Args:
        path: Its run folder.
        run: Folder of the run that is checked.
        store: Store of that run.
        config: Configuration of that run as keys hold it.

    Raises:
        UserError: If ``path`` is no finished run of the same settings, or the two share folder or store, so that one
            would be compared with its own artifacts.
    """

    def __init__(self, path: Path, run: RunFolder, store: ArtifactStore, config: Mapping[str, Any]) -> None:
        results = read_run(path).results
        self.method = results["method"]
        self.added = {task.replace(":", "_") for task in results.get("added") or {}}  # by a later command: not compared
        self.folder = RunFolder(path)
        known = self.folder.configuration()
        self.store = ArtifactStore(str(value_of(known, "artifact_dir") or path.parent / ".artifacts"))
        if path.resolve() == run.path.resolve() or self.store.root.resolve() == store.root.resolve():
            raise UserError(
                f"check_against={path} shares the artifact store {self.store.root} with this run, which would take "
                "that run's artifacts instead of making its own. Set --run_dir and --artifact_dir to new folders."
            )
        there = marked(known, self.folder.noted("values"))
        if differ := differences(settings_of(there), settings_of(config)):
            raise UserError(
                f"check_against={path} holds a run of other settings ({'; '.join(differ)}). Use the same for both."
            )

    def check_extraction(
        self,
        keys: Mapping[str, Mapping[str, Any]],
        found: Mapping[str, Moments],
        weights: Mapping[str, float],
        subspace: Path,
        device: torch.device,
    ) -> list[Check]:
        """Compare moments and subspace.

        Args:
            keys: By task, what its moments depend on; both runs' are kept under it.
            found: By task, moments of the run that is checked.
            weights: By task; see `mixture.mixed`.
            subspace: Its own subspace file.
            device: That it ran on; the bound depends on it.

        Raises:
            UserError: If the other run's store holds no such moments.
        """
        kept = KeptMoments(self.store, keys)
        if len(agree(kept.there())) < len(keys):
            raise UserError(
                f"check_against={self.folder.path}: its store {self.store.root} holds no moments of these settings "
                "(another device or dtype?). Run it again on this machine."
            )
        theirs, _ = kept.load(keys)
        mine, other = CapabilitySubspace.load(subspace), CapabilitySubspace.load(self.folder.subspace)
        worst, energy, rows = 0.0, 0.0, 0
        for task, site in ((task, site) for task, moments in theirs.items() for site in moments.sites):
            ours, reference = found[task].sites[site], theirs[task].sites[site]
            worst = max(worst, relative(ours.second_moment, reference.second_moment), relative(ours.sum, reference.sum))
            rows += abs(ours.count - reference.count)
        for site, reference in mixed(theirs, weights).sites.items():
            gram = reference.gram(bool(other.metadata["center"]))
            captured = [(b.double() * (gram @ b.double())).sum() for b in (mine.bases[site], other.bases[site])]
            energy = max(energy, float((captured[0] - captured[1]).abs() / gram.trace()))
        bound = MOMENTS_CPU if device.type == "cpu" else MOMENTS_GPU[next(iter(keys.values()))["dtype"]]
        return [
            Check("moments", "relative difference, worst site", worst, bound),
            Check("moments", "rows of G more or less", rows),
            Check("subspace", "captured energy, worst site", energy, ENERGY),
        ]

    def check_run(self, run: RunFolder) -> list[Check]:
        """Compare corpus, adapter, and the answers of every model with those of ``run``."""
        checks, folders = [], (self.folder, run)
        if self.folder.corpus.is_file():
            lines = differing_lines(*(folder.corpus.read_bytes() for folder in folders))
            checks.append(Check("corpus", "lines that differ", lines))
        if self.folder.adapter_weights.is_file():
            theirs, mine = (_weights(folder.adapter_weights) for folder in folders)
            shared = sorted(mine.keys() & theirs.keys())
            flat = [torch.cat([w[name].flatten().double() for name in shared]) for w in (mine, theirs)]
            checks += [
                Check("adapter", "tensors in one run alone", len(mine.keys() ^ theirs.keys())),
                Check("adapter", "relative difference", relative(*flat), ADAPTER),
            ]
        for (task, method), samples in self.folder.sample_files().items():
            if task in self.added:
                continue
            answers = [_verdicts(folder.samples / samples.name) for folder in folders]
            both = answers[0].keys() & answers[1].keys()
            changed = sum(answers[0][key] != answers[1][key] for key in both)
            # Two students agree up to rounding, so a close decision may fall otherwise: for information.
            bound = None if method == self.method != "base" else 0.0
            checks += [
                Check(f"{task}, {method}", "answers in one run alone", len(answers[0].keys() ^ answers[1].keys())),
                Check(f"{task}, {method}", f"verdicts that differ, of {len(both)}", changed, bound),
            ]
        return checks


def relative(value: Tensor, reference: Tensor) -> float:
    """``|value - reference| / |reference|`` in the Frobenius norm; the norm of ``value`` for a zero reference."""
    size = float(reference.norm())
    return float((value - reference).norm()) / (size or 1.0)


def differing_lines(one: bytes, two: bytes) -> int:
    """Lines at whose place the other file has another or none; 0 only for equal bytes."""
    a, b = one.splitlines(keepends=True), two.splitlines(keepends=True)
    return sum(x != y for x, y in zip(a, b)) + abs(len(a) - len(b))


def _verdicts(file: Path) -> dict[tuple[str, int], Any]:
    if not file.is_file():
        return {}
    with reading(file, "scored samples", AGAIN):
        return {(r["id"], r["sample"]): r["correct"] for r in read_jsonl(file)}


def _weights(file: Path) -> dict[str, Tensor]:
    with reading(file, "the weights of an adapter", AGAIN):
        return load_file(file)


def agreement_table(checks: list[Check]) -> Table:
    """The checks as a table."""
    rows = [
        (c.artifact, c.measure, f"{c.value:.2g}", "-" if c.bound is None else f"{c.bound:g}", _verdict(c))
        for c in checks
    ]
    return Table(("artifact", "difference", "found", "bound", "verdict"), rows, text_columns=frozenset({0, 1, 4}))


def conclusion(checks: list[Check]) -> str:
    """Whether a run was reproduced, or what differs first in the order of the stages, in a sentence."""
    first = next((check for check in checks if not check.holds), None)
    if first is None:
        return "Reproduced: every bound holds."
    return (
        f"Not reproduced. What differs first: {first.artifact}, {first.measure}: {first.value:.2g} "
        f"(bound {first.bound:g})."
    )


def _verdict(check: Check) -> str:
    return "for information" if check.bound is None else "holds" if check.holds else "BROKEN"
