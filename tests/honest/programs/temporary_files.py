# Named, unnamed and spooled temporary files, and a temporary folder.
import os
import tempfile

def f(text):
    with tempfile.NamedTemporaryFile("w", delete=False) as file:
        file.write(text)
    with open(file.name) as again, tempfile.TemporaryFile("w+") as nameless:
        nameless.write(again.read())
        nameless.seek(0)
        found = nameless.read()
    os.unlink(file.name)
    with tempfile.TemporaryDirectory() as folder:
        open(os.path.join(folder, "x"), "w").close()
        return found, os.listdir(folder)
# ---- tests
assert f("abc") == ("abc", ["x"])
