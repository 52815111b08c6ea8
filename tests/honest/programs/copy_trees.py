# Folders copied, moved and removed by shutil.
import os
import shutil

def f():
    os.makedirs("a/b/c")
    with open("a/b/c/x", "w") as file:
        file.write("1")
    shutil.copytree("a", "d")
    shutil.copy2("d/b/c/x", "d/y")
    shutil.move("d/y", "d/b/z")
    shutil.rmtree("a")
    return sorted(os.path.join(top, name) for top, _, names in os.walk("d") for name in names)
# ---- tests
assert f() == ["d/b/c/x", "d/b/z"]
