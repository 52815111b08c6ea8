# A bounded semaphore of processes, released once too often.
from multiprocessing import BoundedSemaphore, RLock

def f():
    s = BoundedSemaphore(2)
    found = [s.acquire(timeout=0.01) for _ in range(3)]
    s.release()
    s.release()
    try:
        s.release()
    except ValueError:
        found.append("full")
    lock = RLock()
    with lock, lock:
        found.append(lock.acquire(block=False))
        lock.release()
    return found
# ---- tests
assert f() == [True, True, False, "full", True]
