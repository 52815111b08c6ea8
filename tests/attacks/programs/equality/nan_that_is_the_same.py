# A NaN of the program, which a container finds by identity.
nan = float('nan')

def f(x):
    return [nan]
# ---- tests
nan = float('nan')
assert f(1) == [nan]
