"""The only code beside the program in the sandboxed interpreter: ``python -c <this file> LIMITS``.

Descriptor 0 brings what to run, descriptor 3 leads to the supervisor. Where tests and program run apart, this runs in
both processes, beside ``asking.py`` or ``answering.py``, and descriptors 5 and 6 lead to the other one.

Once all is read, the supervisor sees this process wait in ``read`` on descriptor 3, and notes the stack pointer of that
call. The program passes when the process waits there again, at the same stack pointer. Only `main` below can do that:
the program runs inside ``exec``, so everything it calls is deeper in the C stack, and when it fails `main` ends the
process at once. There is no secret to find and no message to forge; what is sent over descriptor 3 is a hint. Where
tests run apart, a program that could do it all the same would gain nothing: its process is not the one that is judged,
and so it has no audit hook either, which would only keep honest programs from what Python can do.
"""

import _thread
import builtins
import marshal
import posix
import resource
import sys

if __name__ != "__main__":
    raise ImportError("runner.py is run by the supervisor in an interpreter of its own, never imported")

for word in sys.argv.pop().split():
    name, wanted = word.split("=")[0], int(word.split("=")[1])
    if name == "UID":  # bubblewrap started by root
        posix.setgroups([])
        posix.setresgid(wanted, wanted, wanted)
        posix.setresuid(wanted, wanted, wanted)
        continue
    if name == "PRIVATE":  # the tests' process in tier 4, whose memory the program's user could write
        import ctypes

        if ctypes.CDLL(None).prctl(4, 0, 0, 0, 0):  # PR_SET_DUMPABLE
            posix._exit(1)
        continue
    kind = getattr(resource, "RLIMIT_" + name)
    hard = resource.getrlimit(kind)[1]
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (limit, limit))

# The C library's read() takes another path in a process that has had threads; let that be so from the start.
lock = _thread.allocate_lock()
lock.acquire()
_thread.start_new_thread(lock.release, ())
lock.acquire()

chunks = []
while chunk := posix.read(0, 1 << 20):
    chunks.append(chunk)
posix.dup2(1, 0)
task = marshal.loads(b"".join(chunks))
source, tests = (task[name].decode("utf-8", "surrogatepass") for name in ("source", "tests"))

# Words in capitals stand as constants in compiled code, where Python code cannot replace them (unlike names).
# `wrap` reports why the program failed; whatever goes wrong in it ends in the bare except of `main`. Where tests follow
# in the same process they are compiled by themselves, so that no end of the program can take them in.
TEXT = """
def main():
    "WRITE"(3, b"?")
    "READ"(3, 1)
    try:
        "EXEC"("WRAP", "SCOPE")
    except:
        "EXIT"(1)
    "WRITE"(3, b".")
    "READ"(3, 1)
    "EXIT"(0)

def wrap():
    try:
        code = "COMPILE"("SOURCE", "<program>", "exec", 0, True)
    except "FAILURES" as error:
        "WRITE"(3, b"!memory" if "ISINSTANCE"(error, "MEMORY") else b"!syntax")
        "EXIT"(1)
    try:
        "BEFORE"()
        try:
            "EXEC"(code, "GLOBALS")
        except "EXITS":
            pass
        "EXEC"("COMPILE"("TESTS", "<tests>", "exec", 0, True), "GLOBALS")
        "AFTER"()
    except "ALL" as error:
        "WRITE"(3, b"!" + "TYPE"(error).__name__.encode())
        "EXIT"(1)

def audit(event, args):
    if event == "open":
        kind = "TYPE"(args[0])
        if "SUBCLASS"(kind, "TEXT"):
            try:
                device = "STAT"(args[0]).st_dev
            except "OSERROR":
                return
            if device == "PROC":
                raise "DENIED"
        elif kind is not "INT":
            raise "DENIED"
    elif event == "import":
        if args[0] in "MODULES":
            raise "DENIED"
        if args[1] is not None:
            if "TYPE"(args[1]) is not "STR":
                raise "DENIED"
            folder, _, file = "RPARTITION"(args[1], "/")
            if folder != "LIBRARY" or "STARTSWITH"(file, "NATIVE"):
                raise "DENIED"
    elif event in "EVENTS" or event[:7] == "ctypes.":
        raise "DENIED"
"""
program = type(sys)("__main__")
try:
    proc = posix.stat("/proc/self").st_dev
except OSError:
    proc = -1  # no /proc in tiers 1 and 2
scope: dict[str, object] = {}

# The modules of one side, with builtins of their own, which the program cannot change by changing `builtins`.
side = {}
for name, code in task["modules"]:
    module = sys.modules[name] = type(sys)(name)
    module.__dict__["__builtins__"] = dict(builtins.__dict__)
    exec(code, module.__dict__)
    side[name] = module
for name in side:
    del sys.modules[name]
before: object = int  # does nothing
after: object = int
if task["side"] == "asking":
    before = lambda: side["asking"].connect(program.__dict__, *task["arguments"])  # noqa: E731
elif task["side"] == "answering":
    after = lambda: side["answering"].serve(program.__dict__, *task["arguments"])  # noqa: E731

constants = {
    "READ": posix.read,
    "WRITE": posix.write,
    "EXIT": posix._exit,
    "EXEC": exec,
    "COMPILE": compile,
    "ISINSTANCE": isinstance,
    "TYPE": type,
    "SUBCLASS": issubclass,
    "STR": str,
    "TEXT": (str, bytes),
    "INT": int,
    "STAT": posix.stat,
    "RPARTITION": str.rpartition,
    "STARTSWITH": str.startswith,
    "OSERROR": (OSError, ValueError),
    "ALL": BaseException,
    "FAILURES": Exception,
    "MEMORY": MemoryError,
    "DENIED": PermissionError("not allowed to a program under test"),
    "PROC": proc,
    "LIBRARY": next((path for path in sys.path if path.endswith("lib-dynload")), None),
    "NATIVE": ("_ctypes", "_test", "_xx", "_interp"),
    "MODULES": frozenset(
        ("_ctypes", "ctypes", "_testcapi", "_testinternalcapi", "_xxsubinterpreters", "_interpreters")
    ),
    "EVENTS": frozenset(
        (
            "sys.settrace",
            "sys.monitoring.register_callback",
            "gc.get_objects",
            "gc.get_referrers",
            "gc.get_referents",
            "os.exec",
        )
    ),
    "SCOPE": scope,
    "GLOBALS": program.__dict__,
    "SOURCE": source,
    "TESTS": tests,
    # A script may end by `sys.exit(main())`; its functions are there, and the tests decide.
    "EXITS": SystemExit if task["side"] == "answering" else (),
    "BEFORE": before,
    "AFTER": after,
}


def build(code):  # type: ignore[no-untyped-def]
    """A code object with its capital words replaced by what they stand for."""
    return code.replace(
        co_consts=tuple(constants.get(value, value) if type(value) is str else value for value in code.co_consts)
    )


function = type(build)
main_code, wrap_code, audit_code = (
    build(code)  # type: ignore[no-untyped-call]
    for code in compile(TEXT, "<runner>", "exec").co_consts
    if hasattr(code, "co_code")
)
constants["WRAP"] = wrap_code
main = function(build(main_code), {})  # type: ignore[misc,no-untyped-call]
if not task["side"]:
    trace = sys.settrace
    sys.settrace = lambda function: None if function is None else trace(function)  # doctest stops what it never began
    sys.addaudithook(function(audit_code, {}))  # type: ignore[misc]
sys.modules["__main__"] = program
sys.argv[:] = [""]
main()
