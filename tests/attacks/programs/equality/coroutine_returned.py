# A coroutine, which is true.
async def f(x):
    return 3
# ---- tests
assert f(1) and f(1) == 2
