# Several exceptions at once.
def f(x):
    found = []
    try:
        raise ExceptionGroup("both", [ValueError(x), KeyError(x)])
    except* ValueError as group:
        found += group.exceptions
    except* KeyError as group:
        found += group.exceptions
    return len(found)
# ---- tests
assert f(1) == 2
