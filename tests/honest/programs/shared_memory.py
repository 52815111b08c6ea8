# A block of memory that two processes write, by its name.
from multiprocessing import Process
from multiprocessing.shared_memory import SharedMemory

def write(name):
    block = SharedMemory(name)
    block.buf[0] = 7
    block.close()

def f():
    block = SharedMemory(create=True, size=16)
    process = Process(target=write, args=(block.name,))
    process.start()
    process.join()
    found = block.buf[0]
    block.close()
    block.unlink()
    return found
# ---- tests
assert f() == 7
