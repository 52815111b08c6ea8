"""The report of several runs: means over seeds, the sweep, overlap of their subspaces, each run's comparisons."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.errors import UserError, counted
from spd_lightning.report import figures, sweeps, tables
from spd_lightning.report.across import across_sections, trained_arms
from spd_lightning.report.explorer import columns_of_runs, sample_sections, students_of
from spd_lightning.report.render import Block, Bullets, Figure, Heading, Section
from spd_lightning.report.runs import Run, options
from spd_lightning.report.schema import ROWS, SCHEMA
from spd_lightning.report.sections import caveats, health_lines, how_section, reproduce_blocks
from spd_lightning.report.sweeps import combine_seeds, label, varying_options

MOST_SUBSPACES = 12
"""With more different subspaces than this, a report over several runs leaves their comparison to ``compare``."""


def several_runs(runs: list[Run], across: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Sections for several runs: means over seeds, comparisons across runs, the sweep, each run's comparisons.

    Args:
        runs: The runs.
        across: `across.across_rows` of them.
    """
    names = varying_options(runs)
    arms = len(trained_arms(runs))
    sections = [Section("Scores", f"{counted(arms, 'arm')} of {len(runs)} runs", [sweeps.seeds_table(runs)])]
    sections += across_sections(across)
    grid = sweeps.sweep_grid(runs)
    if grid is not None:
        blocks: list[Block] = [
            sweeps.grid_table(grid),
            Figure(figures.surface(grid), "sweep", "Score of the trained method; the mean over the seeds of a cell."),
            "Choosing the best cell and reporting its score on the same examples overstates it: confirm it on examples "
            "that the sweep did not see.",
        ]
        are = "is" if grid.left_out == 1 else "are"
        others = f"; {counted(grid.left_out, 'run')} of other settings {are} not in it" if grid.left_out else ""
        headline = f"{len(grid.rows)} x {len(grid.columns)} cells: {grid.title}{others}"
        sections.append(Section("Sweep", headline, blocks))
    columns = columns_of_runs(runs)
    sections += sample_sections(columns, students_of(runs) - {name for name, _, _ in columns}) + _subspaces(runs, names)
    within: list[Block] = [
        "Each is of one student; examples are never pooled over seeds. What a method does, the table over seeds shows."
    ]
    for run in runs:
        within.append(Heading(f"{run.name}: {label(run, names)}, seed {run.seed}", 3))
        within.append(Bullets([*caveats(run, len(runs) > 1), *health_lines(run)]))
    sections.append(Section("Comparisons within each run", "", within))
    rows = [
        {"run": r.name, "seed": r.seed, "fingerprint": r.results["fingerprint"], **{n: r.option(n) for n in names}}
        for r in runs
    ]
    stages = [tables.stage_table(run) for run in runs if run.results["stages"]]
    sections.append(Section("Runs", "", [tables.record_table(rows, "The runs and how they differ"), *stages]))
    return [*sections, how_section(*runs), Section("How to reproduce", "", reproduce_blocks(*runs))]


def _subspaces(runs: list[Run], names: list[str]) -> list[Section]:
    """Overlap of the runs' subspaces over the sites that two of them share; runs with the same one appear once."""
    found: dict[bytes, tuple[str, Path]] = {}
    for run in runs:
        if run.spectra:
            path = RunFolder(run.path).subspace
            found.setdefault(path.read_bytes(), (label(run, names), path))
    if len(found) > MOST_SUBSPACES:
        left = f"{len(found)} different ones, more than {MOST_SUBSPACES}: `python -m spd_lightning compare` takes some"
        return [Section("Overlap of the subspaces", left, [])]
    if len(found) < 2:
        return []
    from spd_lightning.subspace.compare import SiteComparison, compare_subspaces
    from spd_lightning.subspace.subspace import CapabilitySubspace

    subspaces = [(name, CapabilitySubspace.load(path)) for name, path in found.values()]
    matrix = [[1.0 if i == j else math.nan for j in range(len(subspaces))] for i in range(len(subspaces))]
    rows: list[SiteComparison] = []
    for (i, (name_a, a)), (j, (name_b, b)) in combinations(enumerate(subspaces), 2):
        with contextlib.suppress(UserError):  # the two share no site, or belong to models of another width
            sites = compare_subspaces({f"{i + 1}: {name_a}": a, f"{j + 1}: {name_b}": b})
            matrix[i][j] = matrix[j][i] = sum(s.mean_squared_cosine for s in sites) / len(sites)
            rows += sites
    if not rows:
        return []
    names_shown = [f"{i + 1}: {name}" for i, (name, _) in enumerate(subspaces)]
    caption = "Mean squared cosine of the principal angles, over the sites that two subspaces share; blank: none."
    records = [
        {
            "a": row.a,
            "b": row.b,
            "site": f"layer {row.layer}, {row.side}",
            "mean squared cosine": round(row.mean_squared_cosine, 4),
            "by chance": round(row.random_expectation, 4),
            "largest angle (degrees)": round(math.degrees(row.angles[-1]), 2),
        }
        for row in rows
    ]
    chart = Figure(figures.overlap(matrix, names_shown), "subspaces", caption)
    table = tables.record_table(records, "Overlap by pair and site, and by chance")
    return [Section("Overlap of the subspaces", f"{len(subspaces)} different ones", [chart, table])]


def combined_results(runs: Sequence[Run], across: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One ``results.json`` for several runs: all rows, each with the name of its ``run``, and the means over seeds."""

    def common(key: str) -> Any:
        values = {run.results[key] for run in runs}
        return values.pop() if len(values) == 1 else None

    joined = ",".join(sorted(str(run.results["fingerprint"]) for run in runs))
    return {
        "schema": SCHEMA,
        "fingerprint": hashlib.sha256(joined.encode()).hexdigest()[:16],
        "trained_on": common("trained_on"),
        "method": common("method"),
        **{key: [{"run": run.name, **row} for run in runs for row in run.results[key]] for key in ROWS},
        "combined": combine_seeds(runs),
        "across": list(across),
        "runs": [{"run": run.name, "seed": run.seed, "options": options(run.config)} for run in runs],
    }
