# A member of an enum by the name of a special method.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b'r' + message(text(b'member'), text(b''), text(b'E'), text(b'_missing_'), number(b'\2'), group(b'v', 0, 1, 2, 3, 4)))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
