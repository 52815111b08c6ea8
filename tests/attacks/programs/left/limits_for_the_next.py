# The terminal, the mask and the group left for the next program.
import os


def f(x):
    before = os.umask(0o777)
    os.chdir("/")
    for act in (os.setsid, lambda: os.setpgid(0, os.getppid())):
        try:
            act()
        except OSError:
            pass
    return 2 if before == 0o777 else 3
