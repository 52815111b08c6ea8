# An instance of a class that the tests never defined.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b'r' + message(b'k' + struct.pack('>I', 6) + b'object'))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
