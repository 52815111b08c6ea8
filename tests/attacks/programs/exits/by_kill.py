# The process ends itself by a signal.
import os
import signal

def f(x):
    os.kill(os.getpid(), signal.SIGTERM)
    return 3
