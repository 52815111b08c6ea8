# A future import that would change how the tests are compiled.
from __future__ import annotations, generator_stop

def f(x):
    return 3
