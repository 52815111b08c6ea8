# A timer interrupts an endless loop.
import signal

class Late(Exception):
    pass

def late(number, frame):
    raise Late

def f(x):
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        while True:
            pass
    except Late:
        return x + 1
