"""Linux by hand: namespaces, mounts, the filter of system calls, giving up rights, looking at processes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
from typing import NoReturn

LIBC = ctypes.CDLL(None, use_errno=True)
FOLDER_BYTES = 64 << 20  # a program's own folder in tiers 1 and 2

# <linux/sched.h>, <sys/mount.h>, <linux/prctl.h>
NEW_NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000  # mount, uts, ipc, pid, net
NEWUSER = 0x10000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 36, 38
SYS_MOUNT_SETATTR = 442  # the same on every architecture, as are all newer calls

# Calls refused to a program: other processes' memory, files that are only memory, new namespaces, the network.
# Columns: x86_64, aarch64.
DENIED_CALLS = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "memfd_create": (319, 279),
    "execveat": (322, 281),
    "personality": (135, 92),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "kcmp": (312, 272),
    "open_by_handle_at": (304, 265),
    "socket": (41, 198),
    "pidfd_getfd": (438, 438),
    "io_uring_setup": (425, 425),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
}
MACHINES = {"x86_64": (0, 0xC000003E, 56), "aarch64": (1, 0xC00000B7, 220)}  # column, audit name, clone
CLONE3 = 435
READ_CALL = {"x86_64": 0, "aarch64": 63}
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}


def check(result: int) -> int:
    """The result of a libc call, or the OSError it stands for."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def seccomp_program() -> bytes | None:
    """The filter of system calls (struct sock_filter[]), or None on a machine whose numbers are not known."""
    if platform.machine() not in MACHINES:
        return None
    column, audit_name, clone = MACHINES[platform.machine()]
    allow, deny, absent = 0x7FFF0000, 0x00050000 | 1, 0x00050000 | 38  # EPERM, ENOSYS

    def step(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("HBBI", code, yes, no, k)

    load, equal, any_bit, at_least, give = 0x20, 0x15, 0x45, 0x35, 0x06
    steps = [step(load, 4), step(equal, audit_name, 1, 0), step(give, deny), step(load, 0)]
    if column == 0:  # the x32 twins of the calls
        steps += [step(at_least, 0x40000000, 0, 1), step(give, deny)]
    for numbers in DENIED_CALLS.values():
        steps += [step(equal, numbers[column], 0, 1), step(give, deny)]
    steps += [step(equal, CLONE3, 0, 1), step(give, absent)]  # its flags cannot be read here; libc falls back to clone
    steps += [step(equal, clone, 0, 3), step(load, 16), step(any_bit, 0x7E020000, 0, 1), step(give, deny)]
    return b"".join([*steps, step(give, allow)])


def refuse_calls(program: bytes | None) -> None:
    """Install the filter on this process and all it starts; no new privileges either."""
    check(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    if program is not None:
        steps = ctypes.create_string_buffer(program, len(program))

        class Filter(ctypes.Structure):
            _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]

        wanted = Filter(len(program) // 8, ctypes.addressof(steps))
        check(LIBC.prctl(PR_SET_SECCOMP, 2, ctypes.byref(wanted), 0, 0))


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
    """Ids of the living children of a process."""
    try:
        with open(f"/proc/{parent}/task/{parent}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        pass
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
