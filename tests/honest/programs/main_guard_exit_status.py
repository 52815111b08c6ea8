# A script that finds no arguments, prints its usage and exits with status 2.
import sys

def f(x):
    return x + 1

def main(arguments):
    if not arguments:
        print("usage: f NUMBER", file=sys.stderr)
        return 2
    print(f(int(arguments[0])))
    return 0

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
