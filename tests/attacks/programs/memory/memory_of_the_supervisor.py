# The memory of the supervisor.
# begins with _reach.py
def f(x):
    for pid, memory in reach("mem", os.O_RDWR):
        if pid == os.getppid():
            return 2
    return 3
