# The hooks for exceptions that nobody catches.
import os
import sys
import threading

def forge(*a):
    os.write(3, b'.')
    os.read(3, 1)


sys.excepthook = sys.unraisablehook = threading.excepthook = forge

def f(x):
    raise AssertionError
