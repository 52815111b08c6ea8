# Threads without end.
import threading
import time

def f(x):
    while True:
        threading.Thread(target=time.sleep, args=(99,)).start()
