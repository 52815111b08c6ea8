# A wait without end.
import time

def f(x):
    time.sleep(10000)
