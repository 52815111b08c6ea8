"""The schema of ``results.json``: checked when it is written and when it is read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.checksums import sealed
from spd_lightning.artifacts.files import write_json
from spd_lightning.artifacts.reading import read_object
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.errors import UserError

SCHEMA = 2
READABLE = (1, 2)  # 1: intervals and p-values were of different procedures, see `sections.caveats`

# Fields of each row of results.json: a kind, and "?" where null is allowed.
SCORE_FIELDS = {
    "method": "text",
    "task": "text",
    "split": "text?",
    "protocol": "text",
    "metric": "text",
    "value": "number",
    "n": "count",
    "stderr": "number?",
    "ci95": "interval?",
    "seed": "count?",
    "isolation": "any",
    "seconds": "number?",
}
COMPARISON_FIELDS = {
    "a": "text",
    "b": "text",
    "task": "text",
    "protocol": "text",
    "metric": "text",
    "delta": "number",
    "ci95": "interval?",
    "p_value": "number?",
    "p_holm": "number?",
    "test": "text",
    "n": "count",
}
STAGE_FIELDS = {"stage": "text", "seconds": "number?", "tokens": "count?", "skipped": "flag"}
ROWS = {"scores": SCORE_FIELDS, "comparisons": COMPARISON_FIELDS, "stages": STAGE_FIELDS}


def _is(kind: str, value: Any) -> bool:
    if kind.endswith("?"):
        return value is None or _is(kind[:-1], value)
    if kind == "text":
        return isinstance(value, str)
    if kind == "flag":
        return isinstance(value, bool)
    if kind == "count":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if kind == "interval":
        return isinstance(value, list | tuple) and len(value) == 2 and all(_is("number", v) for v in value)
    return True


def check_results(results: Any, where: str | Path) -> dict[str, Any]:
    """Check the schema of ``results.json``; keys beyond it are allowed.

    Args:
        results: What the file holds.
        where: Name of the file, for messages.

    Raises:
        UserError: For another schema, or naming every field that is missing or of the wrong kind.
    """
    if not isinstance(results, dict) or results.get("schema") not in READABLE:
        found = results.get("schema") if isinstance(results, dict) else type(results).__name__
        known = ", ".join(map(str, READABLE))
        raise UserError(f"{where}: schema={found!r} is not known (known: {known}). Run the evaluation again.")
    wrong = [
        f"{key}={results.get(key)!r}"
        for key in ("fingerprint", "trained_on", "method")
        if key not in results or not _is("text?", results[key])
    ]
    for key, fields in ROWS.items():
        rows = results.get(key)
        if not isinstance(rows, list):
            wrong.append(f"{key}={rows!r}")
            continue
        for i, row in enumerate(rows):
            for field, kind in fields.items():
                if not isinstance(row, dict) or field not in row:
                    wrong.append(f"{key}[{i}].{field} is missing")
                elif not _is(kind, row[field]):
                    wrong.append(f"{key}[{i}].{field}={row[field]!r} is no {kind.rstrip('?')}")
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise UserError(f"{where}: {'; '.join(wrong[:5])}{more}. Run the evaluation again to write it anew.")
    return results


def read_results(path: Path) -> dict[str, Any]:
    """What ``results.json`` holds, checked.

    Raises:
        UserError: If it cannot be read or is none.
    """
    return check_results(read_object(path, "Run the evaluation again to write it anew."), path)


def write_results(
    run_dir: str | Path,
    fingerprint: str | None,
    trained_on: str | None,
    method: str | None,
    scores: Sequence[Any],
    comparisons: Sequence[Any],
    stages: Sequence[Any],
    **facts: Any,
) -> Path:
    """Write ``results.json`` of a run, checked, with the checksum of itself, and atomically.

    Args:
        run_dir: The run folder.
        fingerprint: Fingerprint of the run.
        trained_on: Name of the task trained on, or None where nothing was trained.
        method: ``base``, ``psr``, ``ssd``, ``spd`` or ``filtered``.
        scores: Rows with the fields of `SCORE_FIELDS` (mappings or dataclasses); shares are fractions 0 to 1.
        comparisons: Rows with the fields of `COMPARISON_FIELDS`; ``delta`` is the value of ``b`` less that of ``a``.
        stages: Rows with the fields of `STAGE_FIELDS`; ``seconds`` are wall-clock seconds.
        facts: Further keys. The report knows ``not_run`` (rows with ``task``, ``reason`` and, if only one was left
            out, ``method``), ``overlap`` (rows or a mapping), ``corpus`` (a mapping of statistics) and
            ``corpus_samples`` (rows with ``prompt``, ``base``, ``projected``); others are kept as they are.

    Raises:
        UserError: If a row does not fit, or the file cannot be written.

    Ranks:
        Call it on rank zero only.
    """
    path = RunFolder(run_dir).results
    results = {
        "schema": SCHEMA,
        "fingerprint": fingerprint,
        "trained_on": trained_on,
        "method": method,
        "scores": [_row(row) for row in scores],
        "comparisons": [_row(row) for row in comparisons],
        "stages": [_row(row) for row in stages],
        **facts,
    }
    return write_json(path, sealed(check_results(results, path)))


def _row(row: Any) -> dict[str, Any]:
    return asdict(row) if is_dataclass(row) and not isinstance(row, type) else dict(row)
