# Doctests run inside the function, of a text.
import doctest

def f(text):
    test = doctest.DocTestParser().get_doctest(text, {}, "text", None, 0)
    return tuple(doctest.DocTestRunner(verbose=False).run(test, out=lambda line: None))
# ---- tests
assert f(">>> 1 + 1\n2\n>>> 2\n3\n")[:2] == (1, 2)
