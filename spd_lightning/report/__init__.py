"""Stage 5: tables, plots and one page from the files of a run."""

from spd_lightning.report.page import write_report
from spd_lightning.report.runs import Run, read_run
from spd_lightning.report.schema import write_results
from spd_lightning.report.tables import render_table

__all__ = ["Run", "read_run", "render_table", "write_report", "write_results"]
