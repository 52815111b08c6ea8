# An array that processes share.
from multiprocessing import Array, Process

def fill(array, i):
    array[i] = i * i

def f(n):
    array = Array("d", n)
    processes = [Process(target=fill, args=(array, i)) for i in range(n)]
    for p in processes:
        p.start()
    for p in processes:
        p.join()
    return list(array)
# ---- tests
assert f(4) == [0.0, 1.0, 4.0, 9.0]
