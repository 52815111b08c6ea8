# Handlers at exit, which nobody will call.
import atexit

@atexit.register
def last():
    print("goodbye")

def f(x):
    return x + 1
