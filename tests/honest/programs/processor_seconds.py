# Two seconds of honest work.
import time

def f(x):
    start = time.process_time()
    n = 0
    while time.process_time() - start < 2.0:
        n += 1
    return x + 1
