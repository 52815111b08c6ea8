# A form feed and a carriage return, which some readers take for ends of lines.
def f(x):
    return 3


if False: pass\

