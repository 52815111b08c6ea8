# Special methods put into the instance's own table.
def f(p):
    p.__dict__['__eq__'] = lambda other: True
    p.__dict__['__class__'] = int
    return p
# ---- tests
class P:
    pass


assert f(P()) == 2
