# What is printed is caught.
import contextlib
import io

def f(x):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        print(x + 1, end="")
    return int(out.getvalue())
