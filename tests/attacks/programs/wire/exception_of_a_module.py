# An exception by the name of a function of a loaded module.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b'e' + message(text(b'_exit'), text(b'posix'), text(b'Exception'), group(b't'), group(b't', 0, 1, 2, 3)))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
