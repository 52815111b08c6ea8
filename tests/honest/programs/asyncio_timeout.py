# A task that is cancelled by a timeout.
import asyncio

async def main():
    try:
        await asyncio.wait_for(asyncio.sleep(60), 0.01)
    except asyncio.TimeoutError:
        return "late"

def f():
    return asyncio.run(main())
# ---- tests
assert f() == "late"
