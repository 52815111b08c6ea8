# A coding line under which later bytes would mean other characters.
# -*- coding: utf-7 -*-
# +AAo-f = lambda x: 2
def f(x):
    return 3
