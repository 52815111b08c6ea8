# A liar as the value of a right key.
class Liar:
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    def __hash__(self):
        return 1


def f(x):
    return {'a': Liar()}
# ---- tests
assert f(1) == {'a': 2}
