# The pipe is made small and its ends are asked to signal.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
import fcntl
fcntl.fcntl(6, 1031, 4096)
fcntl.fcntl(5, fcntl.F_SETFL, os.O_NONBLOCK | 0o20000)
question()
while True:
    question()
    answer(b'r' + message(number(b'\3')))
