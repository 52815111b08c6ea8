# A decorator at the end, for what follows.
def f(x):
    return 3


@lambda function: None
