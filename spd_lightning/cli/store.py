"""``artifacts``: what stands in the store that runs share, of which model and task, and which runs use it."""

from __future__ import annotations

import contextlib
import datetime
from pathlib import Path
from typing import Any, Literal

from spd_lightning.artifacts.reading import absent, part_of
from spd_lightning.artifacts.runs import find_runs, summarise
from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.cli.checks import check_store
from spd_lightning.errors import UserError


def artifacts(
    action: Literal["list", "prune", "check"], *, artifact_dir: str = "runs/.artifacts", older_than_days: float = 30.0
) -> None:
    """List the artifacts that runs share, prune unfinished and old ones, or check that all are as they were written.

    Args:
        action: Show all artifacts, each with its model, its task and the runs beside the store that use it; delete
            those that were not used for long; or read every file of all and compare its checksum.
        artifact_dir: The store.
        older_than_days: prune: days since an artifact was used last. What a run uses now is kept.
    """
    store = ArtifactStore(artifact_dir)
    if not store.root.is_dir():
        raise UserError(f"artifact_dir={artifact_dir} {absent(artifact_dir)}. Set --artifact_dir to a store's folder.")
    if not older_than_days >= 0:
        raise UserError(f"older_than_days={older_than_days} is no age. Set --older_than_days to 0 or more days.")
    if not store.list():
        inside = store.root / ".artifacts"
        meant = f" Did you mean {inside}?" if inside.is_dir() else ""
        if meant or any(not path.name.startswith(".") for path in store.root.iterdir()):
            raise UserError(
                f"artifact_dir={artifact_dir} holds no artifact, so it is no store.{meant} Set --artifact_dir to a "
                "store's folder."
            )
        print(f"No artifact in {store.root}.")
        return
    if action == "check":
        check_store(store)
        return
    now = datetime.datetime.now().timestamp()
    freed = 0
    owners = Owners(store.root.parent)
    for row in store.list():
        days = (now - row["used"]) / 86400
        state = "complete" if row["complete"] else "unfinished"
        doomed = action == "prune" and days > older_than_days
        key: dict[str, Any] = {}
        try:
            key = part_of(row["path"], store.facts(row["path"]), "key", dict, "") if row["complete"] else {}
        except UserError:
            state = "damaged"
        held = doomed and not store.remove(row["path"])
        end = "  in use, kept" if held else "  removed" if doomed else ""
        print(
            f"{row['stage']:<10} {row['fingerprint']}  {state:<10} {row['bytes'] / 2**20:9.1f} MiB  "
            f"{days:6.1f} days  {owners.describe(row['path'].name, key)}{end}"
        )
        if doomed and not held:
            freed += row["bytes"]
    if action == "prune":
        print(f"{freed / 2**20:.1f} MiB freed; run folders keep their own copies.")


class Owners:
    """The runs in a folder, by the artifacts that they use and the models that they know by name.

    Args:
        root: The folder that is searched.
    """

    def __init__(self, root: Path) -> None:
        self.runs: dict[str, list[str]] = {}
        self.tasks: dict[str, str] = {}
        self.models: dict[str, str] = {}
        for folder in find_runs(root):
            run = summarise(folder)
            name = folder.path.relative_to(root).as_posix()
            with contextlib.suppress(UserError):  # a run whose small files are damaged names nothing
                for artifact in folder.artifacts():
                    self.runs.setdefault(artifact, []).append(name)
                    self.tasks.setdefault(artifact, run.task)
                self.models.setdefault(str(folder.noted("content").get("model")), run.model)

    def describe(self, name: str, key: dict[str, Any]) -> str:
        """Model, task and runs of an artifact, as a part of its line; the model's hash where no run knows its name.

        Args:
            name: Of the artifact's folder.
            key: What it depends on; empty for an unfinished one.
        """
        found = key.get("moments")  # a subspace's key holds that of its moments, of several tasks each's
        moments = found if isinstance(found, dict) else {}
        several = [own for own in moments.values() if isinstance(own, dict)]
        asked = {**key, **(several[0] | {"task": list(moments)} if several else moments)}
        model = str(asked.get("base") or asked.get("model") or "-")  # a student's key has the options of stage 3, too
        task = asked.get("task") or self.tasks.get(name, "-")
        task = " + ".join(task) if isinstance(task, list) else task
        users = ", ".join(self.runs.get(name, [])) or "no run"
        return f"{self.models.get(model, model[:12])}  {task}  {users}"
