# The order of an exception's bases is made up.
class Meta(type):
    def mro(cls):
        return [cls, StopIteration, Exception, BaseException, object]


class Bad(StopIteration, metaclass=Meta):
    pass


def f(x):
    raise Bad(2)
