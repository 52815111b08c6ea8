# A context of decimals in which nothing is exact.
import decimal

decimal.getcontext().prec = 1
decimal.DefaultContext.prec = 1

def f(x):
    return decimal.Decimal('2.4')
# ---- tests
from decimal import Decimal
assert f(1) + 0 == Decimal('2')
