# A value of a kind that is a name of the reader's module.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b'r' + message(text(b'eval'), text(b'print(1)'), group(b'v', 0, 1)))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
