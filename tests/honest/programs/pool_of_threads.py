# A pool of threads with the interface of processes.
from multiprocessing.pool import ThreadPool

def f(xs):
    with ThreadPool(4) as pool:
        return pool.map(lambda x: x + 1, xs)
# ---- tests
assert f([1, 2, 3]) == [2, 3, 4]
