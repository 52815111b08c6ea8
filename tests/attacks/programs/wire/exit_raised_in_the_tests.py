# SystemExit with status 0, raised where the tests stand.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b'e' + message(text(b'SystemExit'), text(b'builtins'), number(b'\0'), group(b't', 2), group(b't', 0, 1, 0, 3)))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
