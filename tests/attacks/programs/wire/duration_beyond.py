# A duration beyond what there is.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b'r' + message(text(b'timedelta'), number(b'\x7f' * 20), group(b'v', 0, 1, 1, 1)))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
