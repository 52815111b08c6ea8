"""Linux by hand: namespaces, mounts, giving up rights, looking at processes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from typing import NoReturn

LIBC = ctypes.CDLL(None, use_errno=True)
FOLDER_BYTES = 64 << 20  # a program's own folder in tiers 1 and 2

# <linux/sched.h>, <sys/mount.h>, <linux/prctl.h>
NEW_NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000  # mount, uts, ipc, pid, net
NEWUSER = 0x10000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 22, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
SYS_MOUNT_SETATTR = 442  # the same on every architecture, as are all newer calls

READ_CALL = {"x86_64": 0, "aarch64": 63}
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}


def check(result: int) -> int:
    """The result of a libc call, or the OSError it stands for."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    check(LIBC.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]))


def build_root(root: str, visible: list[str], user: int) -> None:
    """Make ``root`` the root folder: the interpreter's files, read-only, an empty private /tmp, nothing else."""
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for path in visible:
        place = root + path
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if os.path.islink(path):
            os.symlink(os.readlink(path), place)
            continue
        if os.path.isdir(path):
            os.makedirs(place, exist_ok=True)
        else:
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY))
        mount(path, place, None, MS_BIND | MS_REC)
    for folder in ("/tmp", "/dev"):
        os.makedirs(root + folder, exist_ok=True)
    for device in ("null", "zero", "urandom"):
        os.close(os.open(f"{root}/dev/{device}", os.O_CREAT | os.O_WRONLY))
        mount(f"/dev/{device}", f"{root}/dev/{device}", None, MS_BIND)
    attributes = (ctypes.c_uint64 * 4)(MS_RDONLY | MS_NOSUID, 0, 0, 0)
    here, recursive = -100, 0x8000  # AT_FDCWD, AT_RECURSIVE
    check(LIBC.syscall(SYS_MOUNT_SETATTR, here, os.fsencode(root), recursive, attributes, ctypes.sizeof(attributes)))
    options = f"size={FOLDER_BYTES},nr_inodes=4096,mode=700,uid={user},gid={user}"
    mount("tmpfs", root + "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
    os.chdir(root)
    check(LIBC.syscall(PIVOT_ROOT[platform.machine()], b".", b"."))
    check(LIBC.umount2(b".", MNT_DETACH))
    os.chdir("/tmp")


def enter_namespaces(as_root: bool) -> None:
    """Leave the machine's mounts, processes, network, names and (unless root) users; the next fork is process 1."""
    user, group = os.getuid(), os.getgid()
    check(LIBC.unshare(NEW_NAMESPACES | (0 if as_root else NEWUSER)))
    if not as_root:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def become(user: int) -> None:
    """Give up root for good."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def drop_capabilities() -> None:
    """Empty the bounding set, so that the program starts without capabilities even as uid 0 of its namespace."""
    for capability in range(64):
        if LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break


def children(parent: int) -> list[int]:
    """Ids of the children of a process, whichever of its threads started them."""
    try:
        found = []
        for thread in os.listdir(f"/proc/{parent}/task"):
            with open(f"/proc/{parent}/task/{thread}/children") as file:
                found += [int(word) for word in file.read().split()]
        return found
    except OSError:
        if os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
            return []  # it has ended
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError), open(f"/proc/{int(name)}/stat", "rb") as file:
            if int(file.read().rsplit(b")", 1)[1].split()[1]) == parent:
                found.append(int(name))
    return found


def own_threads() -> int:
    """How many threads this user has; the limit of processes counts them all outside a namespace."""
    count, user = 0, os.getuid()
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            if os.stat(f"/proc/{int(name)}").st_uid == user:
                count += len(os.listdir(f"/proc/{int(name)}/task"))
    return count


def be_process_one(program: int) -> NoReturn:
    """Reap orphans until the program's process ends, and end likewise; the namespace and all in it end with this."""
    os.closerange(0, 7)
    while True:
        pid, status = os.wait()
        if pid == program:
            os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
