# A selector over a socket pair.
import selectors
import socket

def f(text):
    a, b = socket.socketpair()
    with selectors.DefaultSelector() as selector:
        selector.register(a, selectors.EVENT_READ)
        b.sendall(text)
        (key, _), = selector.select(1)
        return key.fileobj.recv(100)
# ---- tests
assert f(b"abc") == b"abc"
