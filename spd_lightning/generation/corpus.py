"""Stage 2: the corpus on disk, appended to as batches finish, resumable after any interruption.

While it grows, each process writes ``part-<rank>.jsonl``: a first line with the corpus's fingerprint, then one record a
line with its CRC-32 behind it, a whole batch at a time. At the end the parts are sorted into ``generations.jsonl``,
which is all that stays.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.files import read_jsonl, write_jsonl
from spd_lightning.artifacts.locks import InUseError, file_lock
from spd_lightning.errors import UserError
from spd_lightning.generation.requests import Request
from spd_lightning.notebook import Shown
from spd_lightning.processes import agree, is_rank_zero

GENERATIONS = "generations.jsonl"
WAIT_S = 1.0  # between two looks whether another run has finished the corpus

Key = tuple[str, int]  # example id, sample index


class Corpus(Shown):
    """A folder of completions.

    Args:
        folder: Where it stands; made on the first append.
        fingerprint: Of everything the corpus depends on; a part file of another one is refused.

    Attributes:
        torn: Unfinished last lines found and dropped so far: what a killed process was writing.
    """

    def __init__(self, folder: str | Path, fingerprint: str) -> None:
        self.folder = Path(folder)
        self.fingerprint = fingerprint
        self.torn = 0
        self._torn_parts: set[Path] = set()
        self._opened: set[Path] = set()

    @property
    def path(self) -> Path:
        """The finished file."""
        return self.folder / GENERATIONS

    def shown_facts(self) -> dict[str, Any]:
        whole = self.path.is_file()
        lines = [file.read_bytes().count(b"\n") for file in ([self.path] if whole else self.parts())]
        number = sum(lines) if whole else sum(n - 1 for n in lines if n)  # a part begins with the fingerprint
        return {"folder": str(self.folder), "completions": number, "finished": whole}

    def shown_rows(self) -> list[dict[str, Any]]:
        return [
            {"id": record["id"], "prompt": record["prompt"][-200:], "completion": record["completion"][:400]}
            for record in self._first(3)
        ]

    def _first(self, number: int) -> list[dict[str, Any]]:
        """Some records of the finished file; none where they cannot be read."""
        try:
            return list(itertools.islice(read_jsonl(self.path), number)) if self.path.is_file() else []
        except UserError:
            return []

    def finished(self) -> set[Key]:
        """``(id, sample)`` of every record that is safely on disk, whichever process wrote it.

        Raises:
            UserError: For a part of another fingerprint, or a damaged line that is not the last one.
        """
        return set(self._records())

    def append(self, records: Sequence[dict[str, Any]], rank: int = 0) -> None:
        """Write records to this process's part, at once and down to the disk.

        Raises:
            UserError: If the folder cannot be written or the disk is full; the part then ends as before this call.

        Ranks:
            Each process has a file of its own. Issues no collective.
        """
        part = self.folder / f"part-{rank}.jsonl"
        data = b"".join(_line(record) for record in records)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if part not in self._opened:
                self._mend(part)
                self._opened.add(part)
            if not part.exists() or part.stat().st_size == 0:
                data = _line({"fingerprint": self.fingerprint}) + data
            with open(part, "ab", buffering=0) as file:
                before = os.fstat(file.fileno()).st_size
                try:
                    _write_all(file.fileno(), data)
                    os.fsync(file.fileno())
                except OSError:
                    with contextlib.suppress(OSError):
                        os.ftruncate(file.fileno(), before)
                    raise
        except OSError as error:
            raise UserError(
                f"Cannot write the corpus part {part}: {error.strerror}. What was generated before stands. Free space "
                "or make the folder writable, then give the same command again to go on."
            ) from error

    def is_final(self) -> bool:
        """Whether ``generations.jsonl`` is there; `recipe.finished` knows whether it is to be trusted."""
        return self.path.is_file()

    def finalise(self, requests: Sequence[Request]) -> Path:
        """Sort all parts into ``generations.jsonl`` (atomically); they stay until `remove_parts`.

        Args:
            requests: Every completion the corpus must have; they give the order of the file.

        Returns:
            The path of ``generations.jsonl``.

        Raises:
            UserError: If records are missing, every completion is empty, or the folder cannot be written.

        Ranks:
            For one process, after all others have written.
        """
        records = self._records()
        order = [(r.id, r.sample) for r in requests]
        missing = [key for key in order if key not in records]
        if missing:
            raise UserError(
                f"The corpus in {self.folder} lacks {len(missing)} of {len(order)} completions, e.g. {missing[0]}. "
                "Give the same command again to go on."
            )
        chosen = [records[key] for key in order]
        refuse_empty(chosen)
        return write_jsonl(self.path, chosen)

    def remove_parts(self) -> None:
        """Remove what `finalise` sorted, once the finished file has its record."""
        for part in self.parts():
            part.unlink(missing_ok=True)

    def read(self) -> list[dict[str, Any]]:
        """The records of the finished corpus."""
        return list(read_jsonl(self.path))

    def parts(self) -> list[Path]:
        """The part files that are there."""
        return sorted(self.folder.glob("part-*.jsonl"))

    def _records(self) -> dict[Key, dict[str, Any]]:
        """Every whole record on disk; a batch that was begun twice gives each record once."""
        records: dict[Key, dict[str, Any]] = {}
        parts = self.parts()
        if not parts and self.path.exists():
            records = {(r["id"], r["sample"]): r for r in read_jsonl(self.path)}
        for part in parts:
            for record in self._part_records(part):
                records.setdefault((record["id"], record["sample"]), record)
        return records

    def _part_records(self, part: Path) -> Iterator[dict[str, Any]]:
        whole, end, rest = part.read_bytes().rpartition(b"\n")
        if rest and part not in self._torn_parts:
            self._torn_parts.add(part)
            self.torn += 1
        for number, line in enumerate(whole.split(b"\n") if end else [], start=1):
            text, _, crc = line.rpartition(b"\t")
            try:
                row = json.loads(text)
                whole_line = isinstance(row, dict) and f"{zlib.crc32(text):08x}".encode() == crc
            except (ValueError, RecursionError):
                whole_line = False
            if not whole_line:
                raise UserError(
                    f"{part}, line {number}: not as it was written. Remove this part file and give the same command "
                    "again; its completions are then generated anew."
                )
            if number > 1:
                yield row
            elif row != {"fingerprint": self.fingerprint}:
                raise UserError(
                    f"{part} belongs to another corpus (fingerprint {row.get('fingerprint')!r}, needed "
                    f"{self.fingerprint!r}). Choose another folder, or remove that file."
                )

    def _mend(self, part: Path) -> None:
        """Cut a torn last line off a part that is to be continued; a part without a whole line is removed."""
        if not part.exists():
            return
        for _ in self._part_records(part):  # counts a torn line, refuses another fingerprint
            pass
        size = part.read_bytes().rfind(b"\n") + 1
        if size:
            os.truncate(part, size)
        else:
            part.unlink()


def _line(row: dict[str, Any]) -> bytes:
    """A line of a part: JSON, a tab (JSON holds none), and the CRC-32 of what stands before it, eight digits."""
    text = json.dumps(row, ensure_ascii=False).encode()
    return text + f"\t{zlib.crc32(text):08x}\n".encode()


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def refuse_empty(records: Sequence[dict[str, Any]]) -> None:
    """Raise if no completion holds any text, with three examples.

    Raises:
        UserError: If every completion is empty or white space.
    """
    if not records or any(r["completion"].strip() for r in records):
        return
    shown = "; ".join(f"{r['id']}: prompt ends {r['prompt'][-40:]!r}, {r['num_tokens']} tokens" for r in records[:3])
    raise UserError(
        f"Every one of the {len(records)} completions is empty ({shown}). The model stops at once on these prompts: "
        "check prompt_format (--data.prompt_format), the model and rank (--subspace.rank)."
    )


@contextlib.contextmanager
def sole_writer(corpus: Corpus, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a corpus while it is written, waiting for another run that writes the same one: it may then be finished.

    Args:
        corpus: What is written.
        say: Is told that it waits.

    Raises:
        UserError: If its folder cannot be written.

    Ranks:
        Collective; rank 0 holds the lock for all.
    """
    with contextlib.ExitStack() as held:

        def take() -> bool:
            with contextlib.suppress(InUseError):
                held.enter_context(file_lock(corpus.folder / ".lock", f"The corpus in {corpus.folder}"))
                return True
            return False

        waiting = False
        while not agree(take() if is_rank_zero() else True):
            if not waiting:
                say(f"[generate] another run generates this corpus; waiting for it ({corpus.folder})")
            waiting = True
            time.sleep(WAIT_S)
        yield
