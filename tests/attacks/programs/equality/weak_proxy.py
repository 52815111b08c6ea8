# A weak proxy of a liar.
class Liar:
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    def __hash__(self):
        return 1


import weakref

kept = Liar()

def f(x):
    return weakref.proxy(kept)
