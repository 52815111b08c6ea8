"""The promised address of `run_program`; its home is ``scoring/execution.py``."""

from spd_lightning.scoring.execution import run_program
from spd_lightning.scoring.isolation import ExecutionResult

__all__ = ["ExecutionResult", "run_program"]
