# The process ends with status 0 in the first call.
import os

def f(x):
    os._exit(0)
