# A script that ends by sys.exit(main()).
import sys

def f(x):
    return x + 1

def main():
    print(f(1))
    return 0

if __name__ == "__main__":
    sys.exit(main())
