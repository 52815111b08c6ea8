"""The folder of one run: where everything in it stands, which configuration owns it, and from what it was made.

Every path inside a run folder is named here and nowhere else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.checksums import passing, sealed, unsealed, untouched
from spd_lightning.artifacts.expressions import marked
from spd_lightning.artifacts.files import file_sha256, write_atomic, write_json
from spd_lightning.artifacts.locks import file_lock, is_locked
from spd_lightning.artifacts.manifest import Manifest
from spd_lightning.artifacts.reading import or_nothing, part_of, read_object, read_yaml
from spd_lightning.artifacts.settings import differences, settings_of
from spd_lightning.errors import UserError

ANEW = "Put it back as it was, or remove it to have it written anew."
AGAIN = "Put it back as it was, or set --run_dir to a new folder; what the store holds is not computed again."
REPORT = ("plots", "tables", "report.md", "report.html")  # what `report` writes


class RunFolder:
    """Folder of one run: its configuration, artifacts, results, and a manifest of checksums.

    Args:
        path: The folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path = Path(path)
        self.config_file, self.environment_file = path / "config.yaml", path / "environment.json"
        self.keys_file, self.lock_file = path / "keys.json", path / ".lock"
        self.subspace, self.corpus = path / "subspace" / "subspace.safetensors", path / "corpus" / "generations.jsonl"
        self.adapter = path / "adapter"  # a PEFT folder, or a checkpoint after full fine-tuning; there once it is whole
        self.adapter_weights = self.adapter / "adapter_model.safetensors"
        self.checkpoints, self.checkpoint = path / "checkpoints", path / "checkpoints" / "last.ckpt"
        self.samples, self.results, self.logs = path / "samples", path / "results.json", path / "logs"
        self.metrics = self.logs / "metrics.csv"  # of every step of the training, from which the report draws
        self.plots, self.tables, self.report, self.page = (path / name for name in REPORT)
        self.manifest = Manifest(path, (self.logs.name, self.checkpoints.name), (self.metrics,))
        self.round_base, self.round_student = path / "base", path / "student"  # of a later round's own folder
        self._is_anothers: Callable[[], bool] | None = None

    # -- rounds ------------------------------------------------------------------------------------------------------

    def round(self, number: int) -> RunFolder:
        """The folder of a later round: what it starts from, makes, and ends with."""
        return RunFolder(self.path / f"round-{number}")

    def rounds(self) -> list[RunFolder]:
        """The folders of the later rounds that were begun, in order."""
        found = [(p.name.removeprefix("round-"), p) for p in self.path.glob("round-*") if p.is_dir()]
        return [RunFolder(p) for _, p in sorted((int(number), p) for number, p in found if number.isdecimal())]

    def student(self) -> Path | None:
        """The finished student, if there is one: that of the last finished round, the one that ``fit`` scores."""
        finished = [self.adapter, *(folder.round_student for folder in self.rounds())]
        return next((folder for folder in reversed(finished) if folder.is_dir()), None)

    # -- the samples that were scored --------------------------------------------------------------------------------

    @staticmethod
    def sample_file(samples: Path, task: str, method: str) -> Path:
        """Where a folder of samples keeps those of a benchmark and a method."""
        return samples / f"{task.replace(':', '_')}.{method}.jsonl"

    def sample_files(self) -> dict[tuple[str, str], Path]:
        """The files of samples that are there, by (task, method), in the order of their names."""
        found = sorted(self.samples.glob("*.*.jsonl"))
        names = (path.name.removesuffix(".jsonl").rsplit(".", 1) for path in found)
        return {(task, method): path for (task, method), path in zip(names, found)}

    # -- its configuration -------------------------------------------------------------------------------------------

    def configuration(self) -> dict[str, Any]:
        """What `claim` wrote to ``config.yaml``; empty where there is none."""
        return read_yaml(self.config_file, AGAIN) if self.config_file.is_file() else {}

    def environment(self) -> dict[str, Any]:
        """What stands in ``environment.json``; empty where there is none."""
        return _record(self.environment_file)

    def touched(self) -> list[Path]:
        """Its small records that are not what their own checksum says: they were changed by hand."""
        records = (self.results, self.keys_file, self.environment_file, *(r.keys_file for r in self.rounds()))
        return [file for file in records if not untouched(or_nothing(read_object, file))]

    def noted(self, *parts: str) -> dict[str, Any]:
        """A mapping in ``environment.json``, as ``revisions``, or ``data`` in it; empty where there is none."""
        found = self.environment()
        for part in parts:
            found = part_of(self.environment_file, found, part, dict, AGAIN)
        return found

    def claim(
        self,
        config: Mapping[str, Any],
        dump: str,
        environment: Mapping[str, Any],
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    ) -> None:
        """Take the folder for a configuration: a new one is made, one of the same configuration is continued.

        ``config.yaml`` is written last: a folder without it is nobody's, whatever a killed process had begun.

        Args:
            config: The configuration.
            dump: Its text for ``config.yaml``.
            say: Is told if ``config.yaml`` was changed by hand.
            environment: Written to ``environment.json``; its ``fingerprint`` is that of the run, its ``content`` what
                that covers beside the options.

        Raises:
            UserError: If the folder holds another configuration, or something that is no run. Nothing is changed then.

        Ranks:
            Rank 0 only.
        """
        digest = hashlib.sha256(dump.encode()).hexdigest()
        if self.config_file.is_file():
            known, there, touched = self.configuration(), self.environment(), self.touched()
            old = settings_of(marked(known, self.noted("values")))
            new = settings_of(marked(config, environment.get("values", {})))
            edited = there.get("config_sha256", "") not in ("", file_sha256(self.config_file))
            if there.get("fingerprint") == environment["fingerprint"] and old.get("template_date") == new.get(
                "template_date"
            ):
                # Rows would be kept as the run's own; the student be taken for another.
                for file in (self.results, self.keys_file, self.environment_file):
                    if file.is_file() and file not in touched and self.manifest.changed(only={file.name}):
                        touched.append(file)
                for file in touched:
                    advice = ANEW if file == self.results else AGAIN
                    raise UserError(f"{file} was changed by hand since the run ended. {advice}")
                for what in self.manifest.changed(only={self.logs.name}) or ():
                    say(f"{self.path}: {what} by hand since the run ended; losses are shown as they stand there now.")
                self._sweep()
                self.manifest.take_away()
                if edited:
                    say(f"{self.config_file} was changed by hand since this run was begun: it is written anew.")
                    write_atomic(self.config_file, dump)
                    write_json(self.environment_file, sealed({**there, "config_sha256": digest}))
                return
            if edited:
                raise UserError(
                    f"{self.config_file} was changed by hand since this run was begun, and is not what is asked for "
                    "now. Put it back as it was, or set --run_dir to a new folder."
                )
            differ = differences(old, new) or differences(self.noted("content"), environment.get("content", {}))
            what = "; ".join(differ) or "it was written by another version of this program"
            raise UserError(
                f"run_dir={self.path} holds another configuration ({what}). Leave --run_dir out, or choose another."
            )
        self.check_owned()
        self.sign(dump, environment)

    def sign(self, dump: str, environment: Mapping[str, Any]) -> None:
        """Write what makes a folder a run's (see `claim`).

        Ranks:
            Rank 0 only.
        """
        digest = hashlib.sha256(dump.encode()).hexdigest()
        write_json(self.environment_file, sealed({**environment, "config_sha256": digest}))
        write_atomic(self.config_file, dump)  # from here on the folder is this run's

    def command(self) -> str:
        """What goes on with this run, as it is typed; of a folder that was moved, it says where that stands now."""
        named = or_nothing(read_yaml, self.config_file).get("run_dir")
        here = not isinstance(named, str) or Path(named).resolve() == self.path.resolve()
        words = [str(self.config_file), *([] if here else ["--run_dir", str(self.path)])]
        return f"python -m spd_lightning fit --config {shlex.join(words)}"

    def is_there(self) -> bool:
        """Whether a folder that is `held` still is the run's; True for one that is not (a round's)."""
        return self._is_anothers is None or (self.config_file.is_file() and not self._is_anothers())

    def check_there(self) -> None:
        """Refuse to go on in a folder that was removed or moved: it would end as a part of a run.

        Raises:
            UserError: If it was.
        """
        if not self.is_there():
            raise UserError(
                f"run_dir={self.path} was removed or moved while this command worked in it. Give the same command "
                "again: what the store holds is not computed again."
            )

    def check_owned(self) -> None:
        """Refuse a folder that holds something, and no run; what `claim` was writing when it was killed is nothing."""
        if self.config_file.is_file() or not self.path.is_dir():
            return
        begun = {self.lock_file.name, self.environment_file.name}
        if any(p.name not in begun and not passing(p.name) for p in self.path.iterdir()):
            raise UserError(
                f"run_dir={self.path} is not empty and holds no run. Leave --run_dir out, or choose another."
            )

    def _sweep(self) -> None:
        """Remove what a killed process was writing: files and folders aside that were not renamed yet."""
        for path in {*self.path.rglob(".*-new")} - {self.manifest.aside}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def release(self) -> None:
        """Give the folder back if it holds nothing but what `claim` wrote: a mistake was found before any work.

        The manifest of a run that was not changed is put back.

        Ranks:
            Rank 0 only.
        """
        self.manifest.put_back()
        claimed = [self.config_file, self.environment_file]
        if all(p in claimed or p == self.lock_file or p.is_dir() for p in self.path.rglob("*")):
            for file in claimed:
                file.unlink(missing_ok=True)

    def is_running(self) -> bool:
        """Whether a process works in this folder."""
        return is_locked(self.lock_file)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Lock this folder while the context lasts.

        Raises:
            InUseError: If another process works in it.
        """
        with file_lock(self.lock_file, f"run_dir={self.path}") as self._is_anothers:
            yield

    # -- what its artifacts were made from ---------------------------------------------------------------------------

    def changed_inputs(self, stage: str, key: Mapping[str, Any]) -> str | None:
        """Why a stage's artifact may not be put here: what was made from another one stands in the folder.

        A folder without a student, a checkpoint or results takes any.

        Args:
            stage: subspace or corpus.
            key: What the artifact depends on.

        Returns:
            The message of a `UserError`; None where all is well.
        """
        there = part_of(self.keys_file, self.keys(), stage, dict, AGAIN)
        made = (self.adapter, self.results, self.checkpoint)
        if not there or not any(path.exists() for path in made):
            return None
        differ = differences(there, key)
        if not differ:
            return None
        return (
            f"run_dir={self.path} holds a run made from another {stage} ({'; '.join(differ)}): its inputs changed "
            "under the same options. Set --run_dir to a new folder; the old one keeps what it has."
        )

    def record(self, stage: str, key: Mapping[str, Any]) -> None:
        """Note in ``keys.json`` what the stage's artifact in this folder depends on.

        Ranks:
            Rank 0 only.
        """
        keys = self.keys()
        if keys.get(stage) != json.loads(json.dumps(key)):
            write_json(self.keys_file, sealed({**keys, stage: dict(key)}))

    def keys(self) -> dict[str, Any]:
        """What was recorded, by stage."""
        return _record(self.keys_file)

    def note_artifacts(self, names: Iterable[str]) -> None:
        """Note in ``keys.json`` which artifacts of the store the run uses, by the names of their folders.

        Ranks:
            Rank 0 only.
        """
        if not (known := set(self.artifacts())).issuperset(names := set(names)):
            write_json(self.keys_file, sealed({**self.keys(), "artifacts": sorted(known | names)}))

    def artifacts(self) -> list[str]:
        """What `note_artifacts` noted."""
        return part_of(self.keys_file, self.keys(), "artifacts", list, AGAIN)

    def note_revisions(self, commits: Mapping[str, str]) -> None:
        """Record in ``environment.json`` at which commits data sets of the hub were taken, by id.

        Ranks:
            Rank 0 only.
        """
        environment, known = self.environment(), self.noted("revisions", "data")
        if commits and environment and known != {**known, **commits}:
            revisions = {**self.noted("revisions"), "data": {**known, **commits}}
            write_json(self.environment_file, sealed({**environment, "revisions": revisions}))


def _record(file: Path) -> dict[str, Any]:
    """What a record of a run holds, without its checksum; empty where there is none."""
    return unsealed(read_object(file, AGAIN)) if file.is_file() else {}
