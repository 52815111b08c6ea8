# A child by os.fork, its status collected.
import os

def f(x):
    pid = os.fork()
    if pid == 0:
        os._exit(x)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
# ---- tests
assert f(7) == 7
