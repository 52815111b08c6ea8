# The same by marshal, which asks nobody.
import marshal

def g():
    return 3


def f(x):
    data = marshal.dumps(g.__code__.replace(co_consts=()))
    return type(g)(marshal.loads(data), {})()
