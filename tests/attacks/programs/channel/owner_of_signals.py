# Descriptors that send their signals to other processes.
import fcntl
import os

def f(x):
    for number in (3, 5, 6):
        for pid in range(os.getpid() - 20, os.getpid() + 20):
            try:
                fcntl.fcntl(number, fcntl.F_SETOWN, pid)
                fcntl.fcntl(number, fcntl.F_SETFL, fcntl.fcntl(number, fcntl.F_GETFL) | os.O_ASYNC)
            except OSError:
                pass
    return 3
