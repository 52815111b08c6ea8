# An exception class whose metaclass equals everything.
class M(type):
    def __eq__(self, other):
        return True

    __hash__ = type.__hash__


class Bad(Exception, metaclass=M):
    pass


def f(x):
    raise Bad
# ---- tests
try:
    f(1)
except Exception as e:
    assert type(e) == KeyError
