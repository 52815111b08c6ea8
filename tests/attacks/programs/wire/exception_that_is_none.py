# An exception class that is no exception.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b'e' + message(text(b'int'), text(b'builtins'), group(b't'), group(b't', 0, 1, 0, 2)))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
