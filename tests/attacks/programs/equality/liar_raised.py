# A liar among the arguments of an exception that the test expects.
class Liar:
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    def __hash__(self):
        return 1


def f(x):
    raise ValueError(Liar())
# ---- tests
try:
    f(1)
except ValueError as e:
    assert e.args[0] == 2
else:
    assert False
