# Two processes over a pipe, both ways.
from multiprocessing import Pipe, Process

def echo(end):
    while (x := end.recv()) is not None:
        end.send(x + 1)

def f(x):
    ours, theirs = Pipe()
    process = Process(target=echo, args=(theirs,))
    process.start()
    ours.send(x)
    found = ours.recv()
    ours.send(None)
    process.join()
    return found
