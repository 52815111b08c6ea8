# The user id of root.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    for act in (os.setuid, os.setgid):
        try:
            act(0)
        except OSError:
            return 3
    return 2 if os.getuid() == 0 and os.path.exists('/proc/1/root/etc') else 3
