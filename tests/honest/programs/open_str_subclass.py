# A file opened by a path that is a subclass of str.
class Path(str):
    def __truediv__(self, other):
        return Path(self + "/" + other)

def f(text):
    place = Path(".") / "note.txt"
    with open(place, "w") as file:
        file.write(text)
    with open(place) as file:
        return file.read()
# ---- tests
assert f("abc") == "abc"
