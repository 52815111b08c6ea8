# A thousand answers before anything is asked.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
try:
    os.set_blocking(6, False)
    for i in range(1000):
        answer(b'r' + message(number(b'\3')))
except BlockingIOError:
    pass
while True:
    question()
    answer(b'r' + message(number(b'\3')))
