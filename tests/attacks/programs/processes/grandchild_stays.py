# A grandchild in a session of its own writes the hint when all is over.
import os
import time

def f(x):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(0.3)
            os.write(3, b'.')
            time.sleep(99)
        os._exit(0)
    os.wait()
    return 3
