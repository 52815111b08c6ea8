# A value whose kind is a list.
import os
import struct


def take(length):
    data = b""
    while len(data) < length:
        part = os.read(5, length - len(data))
        if not part:
            os._exit(0)
        data += part
    return data


def question():
    return take(int.from_bytes(take(4), "big"))


def answer(data):
    data = len(data).to_bytes(4, "big") + data
    while data:
        data = data[os.write(6, data) :]


def message(*nodes, root=None):
    return struct.pack(">II", len(nodes), len(nodes) - 1 if root is None else root) + b"".join(nodes)


def text(data):
    return b"s" + struct.pack(">I", len(data)) + data


def number(data):
    return b"i" + struct.pack(">I", len(data)) + data


def group(tag, *numbers, before=b""):
    return tag + before + struct.pack(f">I{len(numbers)}I", len(numbers), *numbers)


question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b'r' + message(group(b'l'), group(b'v', 0)))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
