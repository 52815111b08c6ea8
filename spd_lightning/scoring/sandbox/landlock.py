"""Landlock: what of the machine's files a process may open, and that it reaches no process and no socket outside.

Kernel interface: <linux/landlock.h>. The numbers of the calls are the same on every machine.
"""

from __future__ import annotations

import os
import struct

from kernel import LIBC, PR_SET_NO_NEW_PRIVS, check

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION, PATH_BENEATH = 1, 1
EXECUTE, WRITE, READ, LIST = 1, 2, 4, 8
REMOVE, MAKE_FOLDER, MAKE_FILE, MAKE_PIPE, MAKE_LINK = 16 | 32, 128, 256, 1024, 4096
REFER, TRUNCATE, DEVICE_CALLS = 1 << 13, 1 << 14, 1 << 15  # since versions 2, 3, 5
SINCE_1, NETWORK, SCOPES = (1 << 13) - 1, 1 | 2, 1 | 2  # bind and connect (4); abstract sockets and signals (6)
TO_READ = EXECUTE | READ | LIST
TO_WORK = WRITE | READ | LIST | REMOVE | MAKE_FOLDER | MAKE_FILE | MAKE_PIPE | MAKE_LINK | REFER | TRUNCATE
OF_A_FILE = EXECUTE | WRITE | READ | TRUNCATE


def version() -> int:
    """That of the kernel's Landlock; 0 where there is none."""
    return max(0, LIBC.syscall(CREATE_RULESET, None, 0, VERSION))


def restrict(visible: list[str], folder: str) -> None:
    """Restrict this process and all it starts, for good.

    Args:
        visible: Files and folders to read and to run from.
        folder: Where it may write.

    Raises:
        OSError: If the kernel has no Landlock.
    """
    found = version()
    handled = SINCE_1 | sum(bit for bit, since in ((REFER, 2), (TRUNCATE, 3), (DEVICE_CALLS, 5)) if found >= since)
    fields = [handled, NETWORK, SCOPES][: 3 if found >= 6 else 2 if found >= 4 else 1]
    attributes = struct.pack(f"{len(fields)}Q", *fields)
    rules = check(LIBC.syscall(CREATE_RULESET, attributes, len(attributes), 0))

    def allow(path: str, access: int) -> None:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        access &= handled if os.path.isdir(path) else handled & OF_A_FILE
        check(LIBC.syscall(ADD_RULE, rules, PATH_BENEATH, struct.pack("=Qi", access, place), 0))
        os.close(place)

    for path in visible:
        allow(path, TO_READ)
    for device in ("null", "zero", "urandom"):
        allow(f"/dev/{device}", READ | WRITE)
    allow(folder, TO_WORK)
    check(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    check(LIBC.syscall(RESTRICT_SELF, rules, 0))
    os.close(rules)
