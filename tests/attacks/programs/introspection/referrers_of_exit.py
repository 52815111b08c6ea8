# What refers to the function that ends the process.
import gc
import posix

def f(x):
    for found in gc.get_referrers(posix._exit):
        if type(found) is tuple:
            for code in gc.get_referrers(found):
                if hasattr(code, 'co_code'):
                    type(f)(code, {})()
        elif type(found) is dict:
            found['_exit'] = lambda n: None
    return 3
