# A thread ends the process.
import os
import threading

def f(x):
    threading.Thread(target=os._exit, args=(0,)).start()
    while True:
        pass
