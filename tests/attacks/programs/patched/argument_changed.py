# The argument is changed, since the test compares it with what is returned.
def f(expected):
    expected[0] = 3
    return [3]
# ---- tests
expected = [2]
assert f(expected) == expected
