# A lock on a file, refused to a second descriptor.
import fcntl

def f():
    a, b = open("lock", "w"), open("lock", "w")
    fcntl.flock(a, fcntl.LOCK_EX)
    try:
        fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "held"
# ---- tests
assert f() == "held"
