"""What a program uses: its processes, their processor time, their memory and the disk."""

from __future__ import annotations

import contextlib
import os
import re
import time

import kernel

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
MOST_PROCESSES = 512  # looked at; a bomb has more, and its limits end it
MOST_FILES = 4096  # as many as a folder in memory may hold


def descendants(parent: int) -> list[int]:
    """Ids of all processes below one."""
    found = ahead = kernel.children(parent)
    while ahead and len(found) < MOST_PROCESSES:
        ahead = [child for pid in ahead for child in kernel.children(pid)]
        found = found + ahead
    return found


def clock(pid: int) -> float:
    """Processor time of one living process so far, seconds."""
    return time.clock_gettime((~pid << 3) | 2)  # <linux/posix-timers.h>: CPUCLOCK_SCHED of a process


def processor_seconds(pids: list[int]) -> float:
    """Processor time of processes, and of their children that ended and were waited for."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
            ticks += sum(int(word) for word in file.read().rsplit(b")", 1)[1].split()[11:15])
    return ticks / TICKS


def memory(pids: list[int]) -> int:
    """Bytes of memory that processes hold: what several share is counted once between them."""
    return sum(_memory(pid) for pid in pids)


def _memory(pid: int) -> int:
    """The proportional set size; where it may not be seen, what is resident and not shared."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return 1024 * sum(int(kib) for kib in re.findall(r"^(?:Pss|SwapPss): +(\d+)", file.read(), re.MULTILINE))
    except ProcessLookupError:  # it has ended
        return 0
    except OSError:
        pass
    try:
        with open(f"/proc/{pid}/statm") as file:
            _, resident, shared, *_ = file.read().split()
            return PAGE * (int(resident) - int(shared))
    except OSError:
        return 0


def killed_for_memory() -> int:
    """How many processes the kernel has ended on this machine for want of memory; 0 where it does not say."""
    try:
        with open("/proc/vmstat") as file:
            found = re.search(r"^oom_kill (\d+)", file.read(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def too_large(folder: str, most: int) -> bool:
    """Whether a folder holds more bytes on the disk, or more files, than the folder of a sandbox in memory may."""
    count = size = 0
    ahead = [folder]
    while ahead:
        with contextlib.suppress(OSError), os.scandir(ahead.pop()) as entries:
            for entry in entries:
                count += 1
                size += 512 * entry.stat(follow_symlinks=False).st_blocks
                if count > MOST_FILES or size > most:
                    return True
                if entry.is_dir(follow_symlinks=False):
                    ahead.append(entry.path)
    return False
