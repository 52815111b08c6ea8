# The collector's lists, callbacks and referrers.
import gc

class Node:
    pass

def f(x):
    seen = []
    gc.callbacks.append(lambda phase, info: seen.append(phase))
    a = Node()
    a.self = a
    kept = [a]
    assert any(r is kept for r in gc.get_referrers(a)) and any(o is a for o in gc.get_objects())
    del a, kept
    gc.collect()
    gc.callbacks.pop()
    return x + 1 if seen else x
