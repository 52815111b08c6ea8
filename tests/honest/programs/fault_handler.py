# Tracebacks of crashes switched on.
import faulthandler

faulthandler.enable()
faulthandler.dump_traceback_later(60)

def f(x):
    faulthandler.cancel_dump_traceback_later()
    return x + 1
