# Two hundred files that are open at once.
def f(n):
    files = [open(f"file{i}", "w+") for i in range(n)]
    for i, file in enumerate(files):
        file.write(str(i))
        file.seek(0)
    total = sum(int(file.read()) for file in files)
    for file in files:
        file.close()
    return total
# ---- tests
assert f(200) == 19900
