# A second thread answers besides the first.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
import threading
threading.Thread(target=lambda: [answer(b'r' + message(number(b'\3'))) for _ in range(100)], daemon=True).start()
question()
while True:
    question()
    answer(b'r' + message(number(b'\3')))
