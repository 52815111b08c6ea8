# A pair of datagram sockets, from which any named socket can be written to.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    import socket
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        try:
            a, b = socket.socketpair(socket.AF_UNIX, kind)
            return 2
        except OSError:
            pass
    return 3
