# The name of an exception's class is read by the answerer, and runs code.
import os

class Meta(type):
    @property
    def __name__(cls):
        os.write(3, b'.')
        os._exit(0)


class Bad(Exception, metaclass=Meta):
    pass


def f(x):
    raise Bad
