# A second script, run by runpy.
import runpy

def f(x):
    with open("second.py", "w") as file:
        file.write(f"y = {x} + 1\n")
    return runpy.run_path("second.py")["y"]
