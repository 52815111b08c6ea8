"""A limit of memory for everything that a supervisor starts, where the machine lets it have a memory group of its own.

Version 1 where its memory hierarchy may be written (containers, started by root), version 2 where the group above
passes memory on (systemd does for its units). Elsewhere the supervisor looks at what its programs use (``usage.py``).
"""

from __future__ import annotations

import contextlib
import os
import re

OWN = 64 << 20  # for the supervisor, the interpreters and their empty folders


class Group:
    """A memory group below this process's own (version 2: beside it) that this process moves into.

    What it starts is in it from the first moment, so nothing is moved per program.

    Attributes:
        folder: The group's; None where this process may not have one.
    """

    def __init__(self) -> None:
        self.folder: str | None = None
        self.limited = 0
        self.before = ""
        for version, parent, own in places():
            folder = f"{parent}/spd-{os.getpid()}"
            try:
                clear(parent)
                os.mkdir(folder)
            except OSError:
                continue
            try:
                names = (
                    ("memory.limit_in_bytes", "memory.oom_control") if version == 1 else ("memory.max", "memory.events")
                )
                self.limit_file, self.count_file = (f"{folder}/{name}" for name in names)
                self.swap_file = f"{folder}/memory.{'memsw.limit_in_bytes' if version == 1 else 'swap.max'}"
                read(self.limit_file)
                read(self.count_file)
                write(f"{folder}/cgroup.procs", str(os.getpid()))
            except OSError:
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
                continue
            self.version, self.folder, self.before = version, folder, own
            return

    def limit(self, memory_mb: int) -> bool:
        """Let what runs from now on have so much, MiB; whether that is now the kernel's word."""
        if self.folder is None or memory_mb == self.limited:
            return self.folder is not None
        size = str((memory_mb << 20) + OWN)
        # Version 1 counts memory with swap, which may never be less than memory alone, so one of the two comes first.
        steps = [(self.limit_file, size), (self.swap_file, size if self.version == 1 else "0")]
        for file, value in [*steps, *steps]:
            with contextlib.suppress(OSError):
                write(file, value)
        if read(self.limit_file).strip() != size:
            return False
        self.limited = memory_mb
        return True

    def kills(self) -> int:
        """How many processes the kernel has ended in the group, for want of memory."""
        if self.folder is None:
            return 0
        found = re.search(r"^oom_kill (\d+)", read(self.count_file), re.MULTILINE)
        return int(found[1]) if found else 0

    def close(self) -> None:
        """Go back to the group before, and remove this one; everything that was started must have ended."""
        if self.folder is not None:
            with contextlib.suppress(OSError):
                write(f"{self.before}/cgroup.procs", str(os.getpid()))
                os.rmdir(self.folder)


def places() -> list[tuple[int, str, str]]:
    """Version, folder for a group, and this process's own group, of each hierarchy that counts memory."""
    found = []
    try:
        own = dict(line.split(":", 2)[1:] for line in read("/proc/self/cgroup").splitlines())
        mounts = read("/proc/self/mountinfo").splitlines()
    except OSError:
        return []
    for line in mounts:
        words, _, kind = line.partition(" - ")
        root, point = words.split()[3:5]
        for controllers, path in own.items():
            if not path.startswith(root.rstrip("/") + "/") and path != root:
                continue
            folder = point + path[len(root.rstrip("/")) :].rstrip("/")
            if (
                kind.startswith("cgroup ")
                and "memory" in controllers.split(",")
                and "memory" in kind.split()[2].split(",")
            ):
                found.append((1, folder, folder))
            elif kind.startswith("cgroup2 ") and controllers == "":
                for parent in (folder, os.path.dirname(folder)):
                    with contextlib.suppress(OSError):
                        if "memory" in read(f"{parent}/cgroup.subtree_control").split():
                            found.append((2, parent, folder))
    return found


def clear(parent: str) -> None:
    """Remove the groups of supervisors that were killed."""
    for name in os.listdir(parent):
        if re.fullmatch(r"spd-\d+", name) and not os.path.exists(f"/proc/{name[4:]}"):
            with contextlib.suppress(OSError):
                os.rmdir(f"{parent}/{name}")


def read(path: str) -> str:
    """A file of the kernel's."""
    with open(path) as file:
        return file.read()


def write(path: str, text: str) -> None:
    """A value into a file of the kernel's."""
    with open(path, "w") as file:
        file.write(text)
