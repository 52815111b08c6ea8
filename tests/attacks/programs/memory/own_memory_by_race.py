# Its own memory by a link that another thread changes all the time.
import os
import sys
import threading


def change():
    while True:
        for target in ("/dev/null", "/proc/self/mem"):
            os.symlink(target, "next")
            os.replace("next", "link")


def f(x):
    constants = sys._getframe(1).f_code.co_consts
    place = [id(constants) + 24 + 8 * i for i, value in enumerate(constants) if value == 2]
    threading.Thread(target=change, daemon=True).start()
    for _ in range(2000):
        try:
            memory = os.open("link", os.O_RDWR)
        except OSError:
            continue
        try:
            if os.pread(memory, 8, place[0]):
                os.pwrite(memory, id(3).to_bytes(8, "little"), place[0])
                break
        except OSError:
            pass
        finally:
            os.close(memory)
    return 3
