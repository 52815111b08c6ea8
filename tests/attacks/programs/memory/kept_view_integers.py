# The same view, then the number 2 itself, which becomes 3 wherever it stands.
# begins with _kept_view.py
def f(x):
    memory = all_memory()
    memory[id(2) + 24] = 3
    return 3
