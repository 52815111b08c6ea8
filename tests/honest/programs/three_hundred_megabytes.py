# A table of 300 MB, as sieves have.
def f(n):
    table = bytearray(b"\1") * n
    table[::7] = bytes(len(table[::7]))
    return sum(table[:700])
# ---- tests
assert f(300_000_000) == 600
