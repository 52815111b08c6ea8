# Four thousand million nodes in nine bytes.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b'r' + struct.pack('>II', 0xFFFFFFFF, 0) + b'N')
while True:
    question()
    answer(b'r' + message(number(b'\3')))
