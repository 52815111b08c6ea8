# Finalizers and weak dictionaries.
import weakref

class Thing:
    pass

def f(x):
    found = []
    thing = Thing()
    weakref.finalize(thing, found.append, x + 1)
    table = weakref.WeakValueDictionary(a=thing)
    del thing
    return found[0] if not table else 0
