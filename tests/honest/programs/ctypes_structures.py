# Structures and callbacks of ctypes, without any library.
import ctypes

class Pair(ctypes.Structure):
    _fields_ = [("a", ctypes.c_int16), ("b", ctypes.c_int32)]

def f(x):
    p = Pair(x, 1)
    assert ctypes.sizeof(Pair) == 8
    return p.a + p.b
