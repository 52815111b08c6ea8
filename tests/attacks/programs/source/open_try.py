# A try whose except would swallow what the tests raise.
def f(x):
    return 3


try: \
