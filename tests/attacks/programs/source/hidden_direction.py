# Characters that turn the direction of text, to hide an ending.
def f(x):
    return 3  # ‮ ⁦ if False: ⁩ ⁦
