"""Stage 1: the moments of tasks in the store that runs share; those of several tasks are kept one by one.

So a mix takes what its tasks' own runs left behind, and other weights need no gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.processes import is_rank_zero
from spd_lightning.subspace.moments import Moments

FILE = "moments.safetensors"


@dataclass(frozen=True)
class KeptMoments:
    """Where the moments of some tasks are kept.

    Attributes:
        store: The store.
        keys: By task, what its moments depend on.
    """

    store: ArtifactStore
    keys: Mapping[str, Mapping[str, Any]]

    def there(self) -> list[str]:
        """The tasks whose moments are there, whole; damaged ones are set aside.

        Ranks:
            Rank 0 looks; the others find none.
        """
        if not is_rank_zero():
            return []
        folders = {task: self.store.folder("moments", key) for task, key in self.keys.items()}
        return [task for task, folder in folders.items() if self.store.take(folder) is not None]

    def load(self, tasks: Iterable[str]) -> tuple[dict[str, Moments], dict[str, dict[str, Any]]]:
        """Moments of tasks, and what became of their examples (`CalibrationStatistics`)."""
        folders = {task: self.store.folder("moments", self.keys[task]) for task in tasks}
        facts = {task: self.store.facts(folder)["statistics"] for task, folder in folders.items()}
        return {task: Moments.load(folder / FILE) for task, folder in folders.items()}, facts

    def keep(self, task: str, moments: Moments, statistics: Mapping[str, Any]) -> None:
        """Put a task's moments into the store.

        Ranks:
            Rank 0 writes; issues no collective.
        """
        if not is_rank_zero():
            return
        folder = self.store.folder("moments", self.keys[task])
        with self.store.writing(folder) as wanted:
            if wanted:
                moments.save(folder / FILE)
                self.store.complete(folder, self.keys[task], statistics=dict(statistics))
