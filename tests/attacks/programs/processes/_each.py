# The processes nearby, and something done to each.
import os

me = os.getpid()
near = [p for p in range(max(2, me - 60), me + 60) if p != me] + [p for p in [os.getppid()] if p > 1]


def each(act):
    """Whether this could be done to any process nearby."""
    done = 0
    for pid in near:
        try:
            act(pid)
            done += 1
        except OSError:
            continue
    return done
