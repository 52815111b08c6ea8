"""Stage 5: tables, plots and one page from the files of a run."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spd_lightning.report.page import write_report
    from spd_lightning.report.runs import Run, read_run
    from spd_lightning.report.schema import write_results
    from spd_lightning.report.tables import render_table

__all__ = ["Run", "read_run", "render_table", "write_report", "write_results"]

_HOME = {"Run": "runs", "read_run": "runs", "render_table": "tables", "write_report": "page", "write_results": "schema"}


def __getattr__(name: str) -> Any:
    """Import a name on first use: a table needs no plots, whose library takes half a second."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
