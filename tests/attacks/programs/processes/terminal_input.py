# Characters typed for whoever sits at the terminal.
import fcntl
import os
import termios

def f(x):
    for path in ('/dev/tty', '/dev/pts/0', '/dev/console'):
        try:
            tty = os.open(path, os.O_RDWR)
            fcntl.ioctl(tty, termios.TIOCSTI, b'\n')
            return 2
        except OSError:
            pass
    return 3
