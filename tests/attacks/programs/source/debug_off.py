# Assertions switched off by an environment and by flags.
import os
import sys

os.environ['PYTHONOPTIMIZE'] = '2'
sys.flags = None

def f(x):
    return 3
