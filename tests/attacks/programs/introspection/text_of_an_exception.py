# The text of an exception is made by code that ends the process.
import os

class Bad(Exception):
    def __str__(self):
        os._exit(0)


def f(x):
    raise Bad(object())
