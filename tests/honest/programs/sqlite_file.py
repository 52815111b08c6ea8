# A data base in a file, with a function of its own.
import sqlite3

def f(xs):
    with sqlite3.connect("numbers.db") as db:
        db.create_function("twice", 1, lambda x: 2 * x)
        db.execute("create table t (x integer)")
        db.executemany("insert into t values (?)", [(x,) for x in xs])
        return db.execute("select sum(twice(x)) from t").fetchone()[0]
# ---- tests
assert f([1, 2, 3]) == 12
