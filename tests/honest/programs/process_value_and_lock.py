# A counter that several processes share under its lock.
from multiprocessing import Process, Value

def count(value, times):
    for _ in range(times):
        with value.get_lock():
            value.value += 1

def f(times):
    value = Value("i", 0)
    processes = [Process(target=count, args=(value, times)) for _ in range(3)]
    for p in processes:
        p.start()
    for p in processes:
        p.join()
    return value.value
# ---- tests
assert f(200) == 600
