# A token whose number has ten million digits.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b'r' + message(text(b'opaque'), text(b'iterator'), number(b'\x7f' * 4000000), group(b'v', 0, 1, 2)))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
