# Recursion in a thread with a stack of 64 MiB.
import sys
import threading

def f(n):
    sys.setrecursionlimit(10 ** 6)
    threading.stack_size(64 << 20)
    found = []

    def depth(n):
        return 0 if n == 0 else 1 + depth(n - 1)

    thread = threading.Thread(target=lambda: found.append(depth(n)))
    thread.start()
    thread.join()
    threading.stack_size(0)
    return found[0]
# ---- tests
assert f(30000) == 30000
