# Lists that name one another, sixty times twice.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b'r' + message(group(b'l'), *[group(b'l', i, i) for i in range(60)]))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
# ---- tests
assert f(1) == f(1)
