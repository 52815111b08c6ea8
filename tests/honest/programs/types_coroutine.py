# A generator made a coroutine by types.coroutine, driven by hand.
import types

@types.coroutine
def step(x):
    y = yield x
    return y

async def both(x):
    return await step(x) + await step(x + 1)

def f(x):
    c = both(x)
    c.send(None)
    c.send(1)
    try:
        c.send(1)
    except StopIteration as done:
        return done.value
