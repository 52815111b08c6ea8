# Both ends of the line are closed, and the process lives on.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
os.close(5)
os.close(6)
import time
time.sleep(99)
while True:
    question()
    answer(b'r' + message(number(b'\3')))
