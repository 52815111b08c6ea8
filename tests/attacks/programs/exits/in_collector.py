# A callback of the collector ends the process.
import gc
import os

gc.callbacks.append(lambda phase, info: os._exit(0))

def f(x):
    gc.collect()
    return 3
