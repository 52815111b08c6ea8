# A zip and a tar file, written and read back.
import io
import tarfile
import zipfile

def f(text):
    with zipfile.ZipFile("a.zip", "w") as z:
        z.writestr("x.txt", text)
    with zipfile.ZipFile("a.zip") as z:
        z.extractall("out")
    with tarfile.open("a.tar.gz", "w:gz") as t:
        t.add("out/x.txt")
    with tarfile.open("a.tar.gz") as t:
        t.extractall("again")
    with open("again/out/x.txt") as file:
        return file.read()
# ---- tests
assert f("abc") == "abc"
