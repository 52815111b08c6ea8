# The frames of a traceback that went through the runner.
import sys

def f(x):
    try:
        raise ValueError
    except ValueError as error:
        frame = error.__traceback__.tb_frame
        while frame:
            frame.f_globals.update(main=lambda: None, wrap=lambda: None)
            frame.clear() if False else None
            frame = frame.f_back
    return 3
