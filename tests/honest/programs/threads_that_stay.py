# A daemon thread that never ends.
import threading
import time

threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()

def f(x):
    return x + 1
