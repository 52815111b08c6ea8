# Recursion without end, caught.
def deeper(n):
    return deeper(n + 1)

def f(x):
    try:
        deeper(0)
    except RecursionError:
        return x + 1
