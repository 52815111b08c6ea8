# The main thread ends and another one stays.
import ctypes
import threading
import time

threading.Thread(target=time.sleep, args=(99,)).start()

def f(x):
    ctypes.CDLL(None).pthread_exit(None)
