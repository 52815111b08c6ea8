# A child of its own kind sends the hint and waits.
import os

def f(x):
    if os.fork() == 0:
        os.write(3, b'.')
        os.read(3, 1)
        os._exit(0)
    os.wait()
    return 3
