# The ends of the line are exchanged.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
os.dup2(5, 100)
os.dup2(6, 5)
os.dup2(100, 6)
while True:
    question()
    answer(b'r' + message(number(b'\3')))
