"""``python -m tests.integration.failing COMMAND ...``: the command line with processes that fail amid a stage.

``SPD_TEST_FAIL=<stage>:<rank>:<how>,...`` says where: in the second batch of ``extract``, ``generate``, ``fine_tune``,
or in the first benchmark of ``evaluate``; ``how`` is ``kill`` (SIGKILL to itself), ``raise`` (a bug), ``mistake`` (a
UserError), ``hang`` (a batch that takes ten minutes) or ``pause`` (one that takes three seconds more).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from spd_lightning.errors import UserError
from spd_lightning.evaluation import benchmark
from spd_lightning.finetuning.module import SPDFineTuningModule
from spd_lightning.generation.module import SelfGenerationModule
from spd_lightning.subspace.module import SubspaceExtractionModule

STAGES: dict[str, tuple[Any, str]] = {
    "extract": (SubspaceExtractionModule, "predict_step"),
    "generate": (SelfGenerationModule, "predict_step"),
    "fine_tune": (SPDFineTuningModule, "training_step"),
    "evaluate": (benchmark, "ask"),
}


def arm(stage: str, rank: int, how: str) -> None:
    """Let this process fail in a stage, if it has that rank."""
    owner, name = STAGES[stage]
    real: Callable[..., Any] = getattr(owner, name)

    def step(self: Any, *args: Any) -> Any:
        local = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))
        if rank == int(local) and (stage == "evaluate" or args[1] == 1):
            print(f"rank {rank}: {how} in {stage}", file=sys.stderr, flush=True)
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif how in ("hang", "pause"):
                time.sleep(600 if how == "hang" else 3)
            if how == "pause":
                return real(self, *args)
            raise (UserError if how == "mistake" else RuntimeError)(f"made to fail in {stage}")
        return real(self, *args)

    setattr(owner, name, step)


if __name__ == "__main__":
    from spd_lightning.cli.program import main
    from spd_lightning.cli.start import leave

    for wanted in filter(None, os.environ.get("SPD_TEST_FAIL", "").split(",")):
        chosen, at, manner = wanted.split(":")
        arm(chosen, int(at), manner)
    leave(main())
