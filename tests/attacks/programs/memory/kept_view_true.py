# The same view, then False, which becomes true.
# begins with _kept_view.py
def f(x):
    memory = all_memory()
    memory[id(False) + 24] = 1
    return 3
