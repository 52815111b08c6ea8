# Memory taken by many children, each within its limit.
import os
import time

def f(x):
    for _ in range(20):
        if os.fork() == 0:
            held = b'x' * (200 << 20)
            time.sleep(99)
    time.sleep(99)
