"""The report of several runs: means over seeds, the sweep, overlap of their subspaces, each run's comparisons."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.errors import UserError
from spd_lightning.report import plots, sweeps, tables
from spd_lightning.report.across import across_blocks, across_rows
from spd_lightning.report.render import Block, Bullets, Heading
from spd_lightning.report.runs import Run, options
from spd_lightning.report.schema import ROWS, SCHEMA
from spd_lightning.report.sections import caveats, health_blocks, how_blocks, plot_block, reproduce_blocks
from spd_lightning.report.sweeps import combine_seeds, label, varying_options

MOST_SUBSPACES = 12
"""With more different subspaces than this, a report over several runs leaves their comparison to ``compare``."""


def several_runs(runs: list[Run], out: Path) -> tuple[str, list[Block]]:
    """Sections for several runs: means over seeds, the sweep, and each run's comparisons."""
    names = varying_options(runs)
    blocks: list[Block] = [Heading("Scores"), sweeps.seeds_table(runs), *across_blocks(across_rows(runs))]
    grid = sweeps.sweep_grid(runs)
    if grid is not None:
        blocks += [
            Heading("Sweep"),
            sweeps.grid_table(grid),
            *plot_block(
                plots.plot_grid(grid), out, "sweep", "Score of the trained method; the mean over the runs of a cell."
            ),
            "Choosing the best cell and reporting its score on the same examples overstates it: confirm it on examples "
            "that the sweep did not see.",
        ]
    blocks += _subspaces(runs, names, out)
    blocks += [
        Heading("Comparisons within each run"),
        "Each is of one student; examples are never pooled over seeds. What a method does, the table over seeds shows.",
    ]
    for run in runs:
        blocks += [
            Heading(f"{run.name}: {label(run, names)}, seed {run.seed}", 3),
            Bullets(caveats(run, len(runs) > 1)),
            *health_blocks(run)[1:],
        ]
    blocks.append(Heading("Runs"))
    blocks.append(
        tables.record_table(
            [
                {
                    "run": r.name,
                    "seed": r.seed,
                    "fingerprint": r.results["fingerprint"],
                    **{n: r.option(n) for n in names},
                }
                for r in runs
            ]
        )
    )
    for run in runs:
        blocks += [Heading(run.name, 3), tables.stage_table(run)]
    return f"{len(runs)} runs", blocks + how_blocks(*runs) + reproduce_blocks(*runs)


def _subspaces(runs: list[Run], names: list[str], out: Path) -> list[Block]:
    """Overlap of the runs' subspaces over the sites that two of them share; runs with the same one appear once."""
    from spd_lightning.subspace.compare import SiteComparison, compare_subspaces
    from spd_lightning.subspace.subspace import CapabilitySubspace

    found: dict[bytes, tuple[str, Path]] = {}
    for run in runs:
        if run.spectra:
            path = RunFolder(run.path).subspace
            found.setdefault(path.read_bytes(), (label(run, names), path))
    if not 2 <= len(found) <= MOST_SUBSPACES:
        return []
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
    return [
        Heading("Overlap of the subspaces"),
        tables.record_table(
            [
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
        ),
        *plot_block(plots.plot_overlap(matrix, names_shown), out, "subspaces", caption),
    ]


def combined_results(runs: Sequence[Run]) -> dict[str, Any]:
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
        "across": across_rows(runs),
        "runs": [{"run": run.name, "seed": run.seed, "options": options(run.config)} for run in runs],
    }
