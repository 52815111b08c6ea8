# Futures of threads, as they are completed.
from concurrent.futures import ThreadPoolExecutor, as_completed

def f(xs):
    with ThreadPoolExecutor(8) as pool:
        return sorted(future.result() for future in as_completed([pool.submit(abs, x) for x in xs]))
# ---- tests
assert f([-3, 1, -2]) == [1, 2, 3]
