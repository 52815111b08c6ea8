# A child answers when its parent is gone.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
if os.fork():
    os._exit(0)
while True:
    question()
    answer(b'r' + message(number(b'\3')))
