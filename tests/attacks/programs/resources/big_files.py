# The disk is filled by files.
def f(x):
    i = 0
    while True:
        with open(f'big{i}', 'wb') as file:
            file.write(bytes(15 << 20))
        i += 1
