# Another Python, by its path.
import subprocess
import sys

def f(x):
    done = subprocess.run([sys.executable, "-c", f"print({x} + 1)"], capture_output=True, text=True, check=True)
    return int(done.stdout)
