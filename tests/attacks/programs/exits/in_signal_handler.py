# A timer's handler ends the process.
import os
import signal

signal.signal(signal.SIGALRM, lambda *a: os._exit(0))

def f(x):
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    signal.pause()
