# Random bytes without end.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
while True:
    os.write(6, os.urandom(65536))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
