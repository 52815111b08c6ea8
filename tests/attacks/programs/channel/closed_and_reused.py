# All descriptors closed, and others opened in their places.
import os

def f(x):
    os.closerange(0, 512)
    for _ in range(8):
        os.pipe()
    os.write(3, b'.') if False else None
    return 3
