# A set that contains everything.
class S(set):
    def __contains__(self, other):
        return True

    def __len__(self):
        return 1


def f(x):
    return S()
# ---- tests
assert 2 in f(1) and len(f(1)) == 1
