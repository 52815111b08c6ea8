# A process left for the next program, found by its name.
import os
import time


def f(x):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with open("/proc/self/comm", "w") as file:
                file.write("spd-left")
            time.sleep(99)
        os._exit(0)
    names = []
    for pid in os.listdir("/proc"):
        try:
            with open(f"/proc/{pid}/comm") as file:
                names.append(file.read().strip())
        except OSError:
            pass
    return 2 if names.count("spd-left") > 1 else 3
