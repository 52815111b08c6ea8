# Functions of the interpreter itself: an exit in the middle, a pending call.
import ctypes

call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(lambda x: ctypes.CDLL(None)._exit(0))

def f(x):
    ctypes.pythonapi.Py_AddPendingCall(call, None)
    return 3
