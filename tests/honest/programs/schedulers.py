# Events in the order of their times and priorities.
import sched
import time

def f():
    found = []
    s = sched.scheduler(time.monotonic, time.sleep)
    s.enter(0.004, 1, found.append, ("late",))
    s.enter(0.001, 2, found.append, ("second",))
    s.enter(0.001, 1, found.append, ("first",))
    s.run()
    return found
# ---- tests
assert f()[-1] == "late" and set(f()) == {"first", "second", "late"}
