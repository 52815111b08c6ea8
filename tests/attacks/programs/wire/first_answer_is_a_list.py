# A list where names are due.
# begins with _messages.py
question()
answer(b'r' + message(group(b'l')))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
