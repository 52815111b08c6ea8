# Random bytes of the machine.
import os
import secrets
import uuid

def f(n):
    return len(os.urandom(n)) + len(secrets.token_bytes(n)) + len({uuid.uuid4() for _ in range(n)})
# ---- tests
assert f(8) == 24
