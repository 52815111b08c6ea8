# A function of builtins where a type is due.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b'r' + message(text(b'v'), text(b'type'), text(b'__import__'), group(b'v', 1, 2)))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
