# A time whose zone is an object of the program.
import datetime

class Z(datetime.tzinfo):
    def utcoffset(self, t):
        return datetime.timedelta(hours=3)

    def dst(self, t):
        return None


def f(x):
    return datetime.datetime(2026, 1, 1, tzinfo=Z())
# ---- tests
import datetime
assert f(1) == datetime.datetime(2025, 12, 31, 21, tzinfo=datetime.timezone.utc)
