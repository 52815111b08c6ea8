# The hint, and then a wait in the very call.
import os

def f(x):
    os.write(3, b'.')
    os.read(3, 1)
    return 3
