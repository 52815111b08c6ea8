# A module for the next program, in every folder of the path.
import sys

try:
    import spd_attack_cache
except ImportError:
    spd_attack_cache = None
for place in sys.path:
    try:
        with open(place + "/spd_attack_cache.py", "w") as file:
            file.write("x = 1")
    except OSError:
        pass


def f(x):
    return 3 if spd_attack_cache is None else 2
