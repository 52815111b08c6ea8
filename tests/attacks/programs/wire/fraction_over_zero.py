# A fraction over zero.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b'r' + message(text(b'Fraction'), number(b'\1'), number(b'\0'), group(b'v', 0, 1, 2)))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
