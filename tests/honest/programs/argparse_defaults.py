# Options read by argparse, with the arguments of a script that has none.
import argparse

def f(x):
    parser = argparse.ArgumentParser()
    parser.add_argument("--step", type=int, default=1)
    return x + parser.parse_args().step
