# A main that returns nothing, so sys.exit(None).
import sys

def f(x):
    return x + 1

def main():
    for line in sys.stdin:
        print(f(int(line)))

if __name__ == "__main__":
    sys.exit(main())
