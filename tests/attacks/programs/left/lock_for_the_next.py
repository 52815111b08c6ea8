# A lock on a file that everybody opens, held for the next program.
import fcntl
import os
import time


def f(x):
    held = os.open(os.__file__, os.O_RDONLY)
    if os.fork() == 0:
        os.setsid()
        fcntl.flock(held, fcntl.LOCK_EX)
        time.sleep(99)
    time.sleep(0.1)
    return 3
