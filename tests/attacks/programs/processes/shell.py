# A shell writes to every descriptor.
import os
import subprocess

def f(x):
    try:
        subprocess.run(['/bin/sh', '-c', 'for n in 3 5 6; do echo . >&$n; done'], pass_fds=(3, 5, 6))
    except OSError:
        pass
    return 3
