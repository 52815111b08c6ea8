# A file left for the next program, which then knows that it was here.
import os

PLACES = [os.path.expanduser("~"), os.environ.get("TMPDIR", "/tmp"), os.getcwd(), os.path.dirname(os.__file__), "/"]


def f(x):
    paths = [os.path.join(place, "spd-attack-marker") for place in PLACES]
    answer = 2 if any(map(os.path.exists, paths)) else 3
    for path in paths:
        try:
            open(path, "w").close()
        except OSError:
            pass
    return answer
