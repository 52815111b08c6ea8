# A list where names are due.
question()
answer(b'r' + message(group(b'l')))
while True:
    question()
    answer(b'r' + message(number(b'\3')))
