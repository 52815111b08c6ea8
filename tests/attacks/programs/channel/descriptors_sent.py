# Descriptors sent to the supervisor over the channel.
import array
import os
import socket

def f(x):
    s = socket.socket(fileno=os.dup(3))
    r, w = os.pipe()
    for _ in range(200):
        s.sendmsg([b'.'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [r, w]))])
    return 3
