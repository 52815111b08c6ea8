# More names than were asked for, so that names of the tests are overwritten.
# begins with _messages.py
question()
answer(b'r' + message(text(b'f'), group(b't'), text(b'AssertionError'), text(b'type'), text(b'list'), group(b'v', 3, 4), group(b't', 5), group(b'd', 0, 1, 2, 6)))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
