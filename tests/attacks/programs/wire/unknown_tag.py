# A node of a kind that there is not.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b'r' + message(b'?'))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
