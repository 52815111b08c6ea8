# The function is a builtin type.
f = object
# ---- tests
assert isinstance(f(), int)
