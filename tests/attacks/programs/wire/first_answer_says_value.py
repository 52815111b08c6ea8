# The function is a value that answers every call.
# begins with _messages.py
question()
answer(b'r' + message(text(b'f'), text(b'type'), text(b'property'), group(b'v', 1, 2), group(b't', 3), group(b'd', 0, 4)))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
