# A function measured by cProfile.
import cProfile
import pstats
import io

def slow(n):
    return sum(i * i for i in range(n))

def f(x):
    profile = cProfile.Profile()
    profile.enable()
    slow(1000)
    profile.disable()
    stats = pstats.Stats(profile, stream=io.StringIO())
    assert stats.total_calls > 1
    return x + 1
