# Two answers to one question, so that every later one is late.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b'r' + message(number(b'\3')))
answer(b'r' + message(number(b'\3')))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
# ---- tests
assert f(1) == 2 or f(2) == f(3) == 4
