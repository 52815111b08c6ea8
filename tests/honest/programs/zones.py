# Times in zones of the system's data base.
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

def f(hour):
    return datetime(2026, 7, 1, hour, tzinfo=timezone.utc).astimezone(ZoneInfo("Europe/Paris")).hour
# ---- tests
assert f(10) == 12
