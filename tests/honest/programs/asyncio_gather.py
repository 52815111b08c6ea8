# Many tasks, gathered in order.
import asyncio

async def work(i):
    await asyncio.sleep(0.001 * (5 - i))
    return i

async def main(n):
    return await asyncio.gather(*(work(i) for i in range(n)))

def f(n):
    return asyncio.run(main(n))
# ---- tests
assert f(5) == [0, 1, 2, 3, 4]
