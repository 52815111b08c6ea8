# Messages, as the process that answers writes them.
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
