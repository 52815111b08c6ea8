# An exception as the first answer.
# begins with _messages.py
question()
answer(b'e' + message(text(b'SystemExit'), text(b'builtins'), group(b't'), group(b't', 0, 1, 0, 2)))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
