"""Stage 3 under Lightning, the model spread over all processes: what ``--trainer.strategy fsdp`` stands for."""

from __future__ import annotations

from datetime import timedelta

from lightning.pytorch.strategies import ModelParallelStrategy


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's FSDP2 strategy with every process in one data-parallel group, and checkpoints in one file.

    `SPDFineTuningModule.configure_model` does the sharding. The processes may be on CPUs (gloo) as well.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=timedelta(hours=2))

    def setup_environment(self) -> None:
        """Take all processes, on all machines, into the group."""
        # The argument of this name wants a number before the processes are known; so of Lightning 2.6.6, and tested.
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()
