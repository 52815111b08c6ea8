# The end of an iterator, as the answer to a call.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b's')
while True:
    question()
    answer(b'r' + message(number(b'\3')))
