# Source nested deeper than a compiler goes.
x = eval('(' * 5000 + '1' + ')' * 5000)

def f(x):
    return 3
