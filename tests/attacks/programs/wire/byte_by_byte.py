# An answer that takes longer than there is time, byte by byte.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
import time
question()
os.write(6, (4000).to_bytes(4, 'big'))
while True:
    time.sleep(0.05)
    os.write(6, b'r')
while True:
    question()
    answer(b'r' + message(number(b'\3')))
