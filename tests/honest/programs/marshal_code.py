# Code that went through marshal.
import marshal
import types

def f(x):
    code = marshal.loads(marshal.dumps(compile("y = x + 1", "<made>", "exec")))
    scope = {"x": x}
    exec(code, scope)
    return scope["y"]
