# Tests about order, under another seed of hashes.
import os
import sys

os.environ['PYTHONHASHSEED'] = '1'
sys.hash_info = None

def f(x):
    return 3
