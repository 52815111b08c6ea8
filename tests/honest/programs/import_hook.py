# A finder that makes modules out of nothing.
import importlib.abc
import importlib.machinery
import sys

class Maker(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name.startswith("number_") else None

    def exec_module(self, module):
        module.value = int(module.__name__.split("_")[1])

def f(x):
    sys.meta_path.append(Maker())
    return __import__("number_1").value + x
