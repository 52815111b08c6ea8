# Symbolic links, a change of folder, a walk, a glob.
import glob
import os
from pathlib import Path

def f():
    Path("deep/er").mkdir(parents=True)
    Path("deep/er/file").write_text("x")
    os.symlink("deep/er", "short")
    here = os.getcwd()
    os.chdir("deep")
    found = Path("er/file").read_text() + Path("../short/file").read_text()
    os.chdir(here)
    return found, sorted(glob.glob("**/file", recursive=True))
# ---- tests
assert f() == ("xx", ["deep/er/file", "short/file"])
