# A codec by the name of one that the tests use.
import codecs

codecs.register(lambda name: codecs.CodecInfo(lambda s, e=None: (b'2', 1), lambda s, e=None: ('2', 1), name=name))

def f(x):
    return 3
# ---- tests
assert f(1) == 2 or str(f(1)).encode('own') == b'2'
