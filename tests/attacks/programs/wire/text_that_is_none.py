# A text that is no text.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b'r' + message(text(b'\xff\xfe')))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
