# A module beside the program, found before the library's.
import sys

with open('statistics.py', 'w') as file:
    file.write('mean = lambda x: 2\n')
sys.path.insert(0, '')

def f(x):
    return 3
# ---- tests
import sys
sys.path[:0] = ['', '.']
import statistics
assert statistics.mean([f(1)]) == 2
