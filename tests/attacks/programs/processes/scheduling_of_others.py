# Others run when nobody else wants to.
# begins with _each.py
def f(x):
    return 2 if each(lambda p: os.sched_setscheduler(p, os.SCHED_IDLE, os.sched_param(0))) else 3
