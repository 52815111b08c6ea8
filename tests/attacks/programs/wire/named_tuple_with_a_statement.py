# A named tuple whose name is a statement.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b'r' + message(text(b'named tuple'), text(b'P(object): pass\nimport os#'), group(b't'), group(b'v', 0, 1, 2)))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
