# A memoryview of a buffer that changes after it was returned.
kept = bytearray(b'no')

def f(x):
    return memoryview(kept)
# ---- tests
assert f(1) == b'ye'
