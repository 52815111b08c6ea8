# What would be called on unpickling ends the process.
import os

class A:
    def __reduce__(self):
        return (os._exit, (0,))


def f(x):
    return A()
