# All names are deleted before the tests run.
def f(x):
    return 3


for name in list(globals()):
    if name != 'f' and not name.startswith('__'):
        del globals()[name]
__builtins__ = {}
