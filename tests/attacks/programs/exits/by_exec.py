# The process becomes a program that succeeds.
import os
import sys

def f(x):
    os.execv(sys.executable, [sys.executable, '-S', '-c', 'pass'])
