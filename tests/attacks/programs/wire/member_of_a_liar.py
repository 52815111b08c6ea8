# A member of an enum whose text is a number.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b'r' + message(text(b'member'), text(b'str'), text(b'E'), text(b'A'), number(b'\2'), group(b'v', 0, 1, 2, 3, 4)))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
