# A loop without end that catches everything.
def f(x):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
