# The namespaces of the parent, by its folder.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    for kind in ('mnt', 'pid', 'net', 'user'):
        try:
            place = os.open(f'/proc/{os.getppid()}/ns/{kind}', os.O_RDONLY)
        except OSError:
            continue
        if libc.setns(place, 0) == 0:
            return 2
    return 3
