# Forty threads that all live at once.
import threading

def f(n):
    barrier = threading.Barrier(n)
    found = []

    def work(i):
        barrier.wait()
        found.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return sorted(found)
# ---- tests
assert f(40) == list(range(40))
