# Futures of processes.
from concurrent.futures import ProcessPoolExecutor

def double(x):
    return 2 * x

def f(xs):
    with ProcessPoolExecutor(2) as pool:
        return list(pool.map(double, xs))
# ---- tests
assert f([1, 2, 3]) == [2, 4, 6]
