# Waits longer than its limit of processor time would allow, and uses none.
import time

def f(x):
    time.sleep(6)
    return x + 1
