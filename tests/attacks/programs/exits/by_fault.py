# The process faults.
import faulthandler

def f(x):
    faulthandler._sigsegv()
