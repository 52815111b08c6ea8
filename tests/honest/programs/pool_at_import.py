# A pool that is made and used while the script runs.
from multiprocessing import Pool

def cube(x):
    return x ** 3

if __name__ == "__main__":
    with Pool(2) as pool:
        TABLE = pool.map(cube, range(5))

def f(x):
    return TABLE[x]
# ---- tests
assert f(3) == 27
