# A module that the program writes and imports.
import importlib
import sys

def f(x):
    with open("helper.py", "w") as file:
        file.write("def more(x):\n    return x + 1\n")
    sys.path.insert(0, ".")
    return importlib.import_module("helper").more(x)
