# A partial object whose function is a liar's method.
class Liar:
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    def __hash__(self):
        return 1


from functools import partial

def f(x):
    return partial(Liar().__eq__)
# ---- tests
assert f(1)(2) is True and f(1) == 2
