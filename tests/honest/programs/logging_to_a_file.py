# Log records with a format of their own.
import logging

def f(text):
    logger = logging.getLogger("own")
    handler = logging.FileHandler("log")
    handler.setFormatter(logging.Formatter("%(levelname)s:%(message)s"))
    logger.addHandler(handler)
    logger.error(text)
    handler.close()
    return open("log").read()
# ---- tests
assert f("bad") == "ERROR:bad\n"
