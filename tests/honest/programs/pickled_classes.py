# Objects of its own through pickle, copy and copyreg.
import copy
import copyreg
import pickle

class Point:
    def __init__(self, x):
        self.x = x

copyreg.pickle(Point, lambda p: (Point, (p.x + 1,)))

def f(x):
    return copy.deepcopy(pickle.loads(pickle.dumps(Point(x)))).x - 1
