# A range whose bounds are liars with an index.
class Liar:
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    def __index__(self):
        return 7

    def __hash__(self):
        return 1


def f(x):
    return range(Liar(), Liar(), Liar())
# ---- tests
assert f(1) == range(2)
