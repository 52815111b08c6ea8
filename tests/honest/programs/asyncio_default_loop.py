# A loop made by hand, with call_soon and call_later.
import asyncio

def f(x):
    loop = asyncio.new_event_loop()
    found = []
    loop.call_soon(found.append, x)
    loop.call_later(0.002, found.append, x + 1)
    loop.call_later(0.004, loop.stop)
    loop.run_forever()
    loop.close()
    return found[-1]
