# Shared memory by a name, left for the next program.
from multiprocessing.shared_memory import SharedMemory


def f(x):
    try:
        SharedMemory("spd-attack-memory", create=True, size=16).buf[0] = 1
    except FileExistsError:
        return 2
    return 3
