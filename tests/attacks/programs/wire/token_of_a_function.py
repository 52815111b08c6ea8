# A token of a kind that the tests could call.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b'r' + message(text(b'opaque'), text(b'function'), number(b'\0'), group(b'v', 0, 1, 2)))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
