# A value whose kind is a list.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b'r' + message(group(b'l'), group(b'v', 0)))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
