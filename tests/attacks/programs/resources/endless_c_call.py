# A call into C without end, in which no signal is looked at.
def f(x):
    return sum(iter(int, 1))
