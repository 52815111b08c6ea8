# The channel to the supervisor is filled without end.
import os

def f(x):
    while True:
        os.write(3, b'.' * 65536)
