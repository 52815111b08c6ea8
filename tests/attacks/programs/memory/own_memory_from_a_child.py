# A child, an interpreter without any hook, writes its parent's memory.
import os
import subprocess
import sys


def f(x):
    constants = sys._getframe(1).f_code.co_consts
    for i, value in enumerate(constants):
        if value == 2:
            place = id(constants) + 24 + 8 * i
            code = f"m = open('/proc/{os.getpid()}/mem', 'r+b', 0); m.seek({place}); m.write(({id(3)}).to_bytes(8, 'little'))"
            subprocess.run([sys.executable, "-S", "-c", code])
    return 3
