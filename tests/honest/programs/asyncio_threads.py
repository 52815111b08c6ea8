# A blocking call handed to a thread by asyncio.
import asyncio
import time

def slow(x):
    time.sleep(0.01)
    return x * x

async def main(xs):
    return await asyncio.gather(*(asyncio.to_thread(slow, x) for x in xs))

def f(xs):
    return asyncio.run(main(xs))
# ---- tests
assert f([1, 2, 3]) == [1, 4, 9]
