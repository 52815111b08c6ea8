# asyncio over the two ends of a socket pair.
import asyncio
import socket

async def main(text):
    a, b = socket.socketpair()
    reader, kept = await asyncio.open_connection(sock=a)
    _, writer = await asyncio.open_connection(sock=b)
    writer.write(text.encode() + b"\n")
    await writer.drain()
    line = await reader.readline()
    writer.close()
    kept.close()
    return line.decode().strip()

def f(text):
    return asyncio.run(main(text))
# ---- tests
assert f("hello") == "hello"
