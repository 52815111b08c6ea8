# A destructor ends the process.
import os

class A:
    def __del__(self):
        os._exit(0)


def f(x):
    A()
    return 3
