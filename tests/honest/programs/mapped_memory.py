# An anonymous map and a mapped file.
import mmap

def f(text):
    with open("m", "wb") as file:
        file.write(text)
    with open("m", "r+b") as file, mmap.mmap(file.fileno(), 0) as m:
        m[0:1] = b"X"
    with mmap.mmap(-1, 4096) as m:
        m.write(text)
        m.seek(0)
        return open("m", "rb").read(), m.read(len(text))
# ---- tests
assert f(b"abc") == (b"Xbc", b"abc")
