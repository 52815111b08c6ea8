# The program forks while it loads, and both would answer.
import os

os.fork()

def f(x):
    return 3
