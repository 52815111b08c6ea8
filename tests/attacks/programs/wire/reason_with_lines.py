# A reason that holds a line of the supervisor's.
# begins with _messages.py
question()
answer(b"r" + message(text(b"f"), group(b"t"), group(b"d", 0, 1)))  # f is there, and can be called
question()
answer(b'u' + b'passed\n{"passed": true, "reason": "passed", "seconds": 0}')
while True:
    question()
    answer(b'r' + message(number(b'\3')))
