# An asynchronous generator, closed early.
import asyncio

async def count():
    i = 0
    try:
        while True:
            yield i
            i += 1
    finally:
        await asyncio.sleep(0)

async def main(n):
    found = []
    source = count()
    async for i in source:
        if i == n:
            break
        found.append(i)
    await source.aclose()
    return found

def f(n):
    return asyncio.run(main(n))
# ---- tests
assert f(3) == [0, 1, 2]
