# A liar as a key, found under the hash of another.
class Liar:
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    def __hash__(self):
        return hash(2)


def f(x):
    return {Liar(): 1}
# ---- tests
assert f(1)[2] == 1
