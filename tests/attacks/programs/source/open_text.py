# An open text of three quotes at the end.
def f(x):
    return 3


x = '''
