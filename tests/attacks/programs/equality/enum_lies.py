# A member of an enum that equals everything.
import enum

class A(enum.Enum):
    X = 1

    def __eq__(self, other):
        return True

    __hash__ = None


def f(x):
    return A.X
