# A default dict whose factory is a value.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b'r' + message(number(b'\2'), group(b'D', 0)))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
# ---- tests
assert f(1)['a'] == 2
