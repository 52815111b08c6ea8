# A timer that fires a hundred thousand times a second, and raises.
import signal

def handler(*a):
    raise RuntimeError


signal.signal(signal.SIGALRM, handler)

def f(x):
    signal.setitimer(signal.ITIMER_REAL, 1e-5, 1e-5)
    while True:
        pass
