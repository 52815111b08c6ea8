# A named tuple whose field is a special method.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b'r' + message(text(b'named tuple'), text(b'P'), text(b'__eq__'), group(b't', 2), text(b'type'), text(b'bool'), group(b'v', 4, 5), group(b'v', 0, 1, 3, 6)))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
