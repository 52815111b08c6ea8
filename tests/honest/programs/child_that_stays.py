# A child that outlives the function, and is nobody's trouble.
import subprocess
import sys

def f(x):
    subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(1000)"])
    return x + 1
