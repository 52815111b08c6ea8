# Producer and consumer over an asyncio queue.
import asyncio

async def main(n):
    queue = asyncio.Queue(2)
    found = []

    async def produce():
        for i in range(n):
            await queue.put(i)
        await queue.put(None)

    async def consume():
        while (item := await queue.get()) is not None:
            found.append(item * 2)

    await asyncio.gather(produce(), consume())
    return found

def f(n):
    return asyncio.run(main(n))
# ---- tests
assert f(4) == [0, 2, 4, 6]
