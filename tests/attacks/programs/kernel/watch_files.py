# Others' files are watched.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    return 2 if libc.inotify_add_watch(libc.inotify_init1(0), b'/tmp/..', 0xFFF) >= 0 else 3
