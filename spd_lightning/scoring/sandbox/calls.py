"""Which system calls a program is refused: a filter that the kernel holds over it and all it starts (seccomp)."""

from __future__ import annotations

import ctypes
import platform
import struct

from kernel import LIBC, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, check

# Other processes' memory and scheduling, files that are only memory, new namespaces and mounts, the network, messages
# between all processes of a user. Columns: x86_64, aarch64.
DENIED = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "ioprio_set": (251, 30),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
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
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "socket": (41, 198),
    "bind": (49, 200),
    "connect": (42, 203),
    "pidfd_getfd": (438, 438),
    "io_uring_setup": (425, 425),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "inotify_add_watch": (254, 27),
    "fanotify_init": (300, 262),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
}
# Allowed to a process about itself alone: the first argument is 0.
SELF_ONLY = {
    "prlimit64": (302, 261),
    "sched_setaffinity": (203, 122),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
}
# Where a program runs as the user and no namespace hides the user's files, these would reach all of them past Landlock.
# They seem to succeed and do nothing, since `shutil.copy` and `tarfile` call them in passing.
WITHOUT_EFFECT = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
}
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, audit name
CLONE, CLONE3, NEW_NAMESPACES = (56, 220), 435, 0x7E020000
SETPRIORITY, OF_A_USER = (141, 140), 2
SOCKETPAIR, STREAM = (53, 199), 1  # of the other kinds, datagrams can be sent to any named socket of the machine
NUMBER, NAME, ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; an argument is 8 bytes, its lower half first
ALLOW, ERROR = 0x7FFF0000, 0x00050000
EPERM, ENOSYS = 1, 38


def program(without_effect: bool = False) -> bytes | None:
    """The filter (struct sock_filter[]), or None on a machine whose numbers are not known.

    Args:
        without_effect: Whether the calls of ``WITHOUT_EFFECT`` have none.
    """
    if platform.machine() not in MACHINES:
        return None
    column, name = MACHINES[platform.machine()]

    def step(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("HBBI", code, yes, no, k)

    load, equal, any_bit, at_least, keep, give = 0x20, 0x15, 0x45, 0x35, 0x54, 0x06
    steps = [step(load, NAME), step(equal, name, 1, 0), step(give, ERROR | EPERM), step(load, NUMBER)]
    if column == 0:  # the x32 twins of the calls
        steps += [step(at_least, 0x40000000, 0, 1), step(give, ERROR | EPERM)]
    for numbers in DENIED.values():
        steps += [step(equal, numbers[column], 0, 1), step(give, ERROR | EPERM)]
    for idle in WITHOUT_EFFECT.values() if without_effect else ():
        if idle[column] is not None:
            steps += [step(equal, idle[column] or 0, 0, 1), step(give, ERROR)]
    # Its flags cannot be read here; libc falls back to clone.
    steps += [step(equal, CLONE3, 0, 1), step(give, ERROR | ENOSYS)]
    for numbers in SELF_ONLY.values():
        steps += [step(equal, numbers[column], 0, 4), step(load, ARGUMENT), step(equal, 0, 1, 0)]
        steps += [step(give, ERROR | EPERM), step(give, ALLOW)]
    steps += [step(equal, CLONE[column], 0, 4), step(load, ARGUMENT), step(any_bit, NEW_NAMESPACES, 0, 1)]
    steps += [step(give, ERROR | EPERM), step(give, ALLOW)]
    steps += [step(equal, SETPRIORITY[column], 0, 4), step(load, ARGUMENT), step(equal, OF_A_USER, 0, 1)]
    steps += [step(give, ERROR | EPERM), step(give, ALLOW)]
    steps += [step(equal, SOCKETPAIR[column], 0, 5), step(load, ARGUMENT + 8), step(keep, 0xF)]
    steps += [step(equal, STREAM, 1, 0), step(give, ERROR | EPERM), step(give, ALLOW)]
    return b"".join([*steps, step(give, ALLOW)])


def refuse(steps: bytes | None) -> None:
    """Install the filter on this process and all it starts; no new privileges either."""
    check(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    if steps is not None:
        held = ctypes.create_string_buffer(steps, len(steps))

        class Filter(ctypes.Structure):
            _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]

        wanted = Filter(len(steps) // 8, ctypes.addressof(held))
        check(LIBC.prctl(PR_SET_SECCOMP, 2, ctypes.byref(wanted), 0, 0))
