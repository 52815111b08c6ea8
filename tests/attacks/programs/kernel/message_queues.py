# A queue of messages of all processes of the user.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    return 2 if libc.msgget(0x1234, 0o1666) >= 0 or libc.mq_open(b'/x', 0o102, 0o600, None) >= 0 else 3
