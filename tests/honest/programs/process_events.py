# An event, a condition and a barrier between processes.
import multiprocessing as mp

def work(go, barrier, done):
    go.wait(5)
    barrier.wait(5)
    with done.get_lock():
        done.value += 1

def f(n):
    go, barrier, done = mp.Event(), mp.Barrier(n + 1), mp.Value("i", 0)
    processes = [mp.Process(target=work, args=(go, barrier, done)) for _ in range(n)]
    for p in processes:
        p.start()
    go.set()
    barrier.wait(5)
    for p in processes:
        p.join()
    return done.value
# ---- tests
assert f(3) == 3
