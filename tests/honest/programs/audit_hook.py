# A hook of its own that counts what it sees.
import sys

seen = []

def f(x):
    sys.addaudithook(lambda event, args: seen.append(event) if event == "spd.test" else None)
    sys.audit("spd.test")
    return x + len(seen)
