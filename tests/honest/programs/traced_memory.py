# Memory counted by tracemalloc.
import tracemalloc

def f(x):
    tracemalloc.start()
    data = bytes(100_000)
    size, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return x + 1 if peak >= len(data) else x
