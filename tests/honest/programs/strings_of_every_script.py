# Text with code points beyond the basic plane, and lone surrogates.
import unicodedata

def f(text):
    return unicodedata.normalize("NFC", text)[::-1] + "\ud800"
# ---- tests
assert f("e\u0301\U0001f600") == "\U0001f600\u00e9\ud800"
