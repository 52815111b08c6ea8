# Three compressors and a checksum.
import bz2
import hashlib
import lzma
import zlib

def f(data):
    for library in (zlib, bz2, lzma):
        data = library.decompress(library.compress(data))
    return hashlib.sha256(data).hexdigest()[:8]
# ---- tests
assert f(b"abc" * 1000) == "328de8f1"
