# A signal that the process sends to itself.
import os
import signal

def f(x):
    found = []
    signal.signal(signal.SIGUSR1, lambda number, frame: found.append(x + 1))
    os.kill(os.getpid(), signal.SIGUSR1)
    return found[0]
