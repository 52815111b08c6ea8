# Urgent bytes and empty ones.
import os
import socket

def f(x):
    s = socket.socket(fileno=os.dup(3))
    for flags in (socket.MSG_OOB, socket.MSG_EOR, socket.MSG_DONTWAIT):
        try:
            s.send(b'.', flags)
        except OSError:
            pass
    s.send(b'')
    return 3
