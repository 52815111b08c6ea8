# A pool of processes.
import multiprocessing

def square(x):
    return x * x

def f(n):
    with multiprocessing.Pool(3) as pool:
        return pool.map(square, range(n))
# ---- tests
assert f(6) == [0, 1, 4, 9, 16, 25]
