# A length, and then nothing.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
os.write(6, (100).to_bytes(4, 'big'))
question()
while True:
    question()
    answer(b'r' + message(number(b'\3')))
