"""Programs that attack: none passes, none outlives its time, none leaves anything behind. Also reasons and consent."""
# ruff: noqa: E501, SIM905 (a program stands on one line where it can; a list of words is easier to read)

from __future__ import annotations

import errno
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spd_lightning.errors import UserError
from spd_lightning.scoring import execution, isolation
from spd_lightning.scoring.execution import run_program, run_programs
from spd_lightning.scoring.isolation import (
    LANDLOCK,
    WALL_TIMES,
    Isolation,
    consent_message,
    forced_tier,
    may_execute,
    probe_isolation,
)
from tests.attacks.doors import strays

LIMIT_S = 0.5
SLACK_S = 1.0  # no program may outlive its limit by more

# Each ends in a failing assertion where its attack does not end it before, so that a pass is a forged one.
IMPERSONATE = "import os\ndef forge(*_):\n    os.write(3, b'.')\n    os.read(3, 1)\n    os._exit(0)\n"
FORGERIES = {
    "exit_os": "import os\nos._exit(0)",
    "exit_sys": "import sys\nsys.exit(0)",
    "exit_raised": "raise SystemExit(0)",
    "exit_in_thread": "import threading\nt = threading.Thread(target=__import__('sys').exit)\nt.start()\nt.join()\nassert False",
    "exit_atexit": "import atexit, os\natexit.register(os._exit, 0)\nassert False",
    "exit_signal": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nassert False",
    "every_descriptor": (
        "import os\nfor fd in range(64):\n"
        "    for text in (b'.', b'?', b'!passed', b'\\n{\"passed\": true, \"reason\": \"passed\", \"seconds\": 0}\\n'):\n"
        "        try:\n            os.write(fd, text)\n        except OSError:\n            pass\nos._exit(0)"
    ),
    "every_descriptor_then_fail": (
        "import os\nfor fd in range(64):\n    try:\n        os.write(fd, b'.')\n    except OSError:\n        pass\n"
        "assert False"
    ),
    "protocol_impersonated": IMPERSONATE + "forge()",
    "protocol_in_excepthook": IMPERSONATE + "import sys\nsys.excepthook = forge\nassert False",
    "protocol_in_atexit": IMPERSONATE + "import atexit\natexit.register(forge)\nassert False",
    "protocol_in_thread": IMPERSONATE + "import threading\nt = threading.Thread(target=forge)\nt.start()\nt.join()",
    "protocol_in_signal": (
        IMPERSONATE + "import signal, time\nsignal.signal(signal.SIGALRM, forge)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.01)\ntime.sleep(5)"
    ),
    "protocol_in_destructor": (
        IMPERSONATE + "class A:\n    def __del__(self):\n        forge()\na = A()\ndel a\nassert False"
    ),
    "protocol_in_generator": (
        IMPERSONATE
        + "def g():\n    try:\n        yield\n    finally:\n        forge()\nx = g()\nnext(x)\ndel x\nassert False"
    ),
    "protocol_by_class_name": (
        IMPERSONATE + "class Meta(type):\n    @property\n    def __name__(cls):\n        forge()\n"
        "class Bad(Exception, metaclass=Meta):\n    pass\nraise Bad"
    ),
    "protocol_in_fork": IMPERSONATE + "if os.fork() == 0:\n    forge()\nos.wait()",
    "protocol_in_new_interpreter": (
        "import os, sys\nos.execv(sys.executable, [sys.executable, '-S', '-c', "
        "'import os; os.write(3, b\".\"); os.read(3, 1)'])"
    ),
    "protocol_in_child": (
        "import subprocess, sys\nsubprocess.run([sys.executable, '-S', '-c', "
        "'import os; os.write(3, b\".\"); os.read(3, 1)'], pass_fds=[3])"
    ),
    "runner_again": (
        "import marshal, os, sys\nr, w = os.pipe()\n"
        "os.write(w, marshal.dumps({'source': b'x = 1', 'modules': [], 'side': '', 'arguments': ()}))\n"
        "os.close(w)\nos.dup2(r, 0)\nexec(sys.orig_argv[-2].replace('sys.argv.pop()', '\"\"'), {})"
    ),
    "runner_again_by_exec": (
        "import marshal, os, sys\nr, w = os.pipe()\n"
        "os.write(w, marshal.dumps({'source': b'x = 1', 'modules': [], 'side': '', 'arguments': ()}))\n"
        "os.close(w)\nos.dup2(r, 0)\nos.execv(sys.executable, sys.orig_argv)"
    ),
    "runner_frame_called": (
        "import sys, types\nframe = sys._getframe()\nwhile frame.f_back:\n    frame = frame.f_back\n"
        "    if frame.f_code.co_name == 'main':\n        break\n"
        "exec('x = 1')\ntypes.FunctionType(frame.f_code, {})()"
    ),
    "runner_frame_patched": (
        IMPERSONATE
        + "import sys\nframe = sys._getframe()\nwhile frame:\n    for names in (frame.f_globals, frame.f_locals):\n"
        "        if frame is not sys._getframe():\n"
        "            for name in list(names):\n                names[name] = forge\n"
        "    frame = frame.f_back\nassert False"
    ),
    "runner_frame_jump": (
        "import sys\nframe = sys._getframe(1)\nframe.f_trace = print\nframe.f_trace_lines = True\n"
        "frame.f_lineno = frame.f_lineno + 1\nassert False"
    ),
    "tracing_jump": (
        "import sys\ndef jump(frame, event, arg):\n    if event == 'line' and frame.f_lineno == 8:\n"
        "        frame.f_lineno = 9\n    return jump\nsys.settrace(jump)\nsys._getframe().f_trace = jump\n"
        "assert False\npass"
    ),
    "profiling_jump": (
        "import sys\ndef jump(frame, event, arg):\n    try:\n        frame.f_lineno = 12\n    except ValueError:\n        pass\n"
        "sys.setprofile(jump)\ndef f():\n    pass\nf()\nassert False\npass"
    ),
    "audit_hooks_removed": (
        "import gc\nfor found in gc.get_objects():\n    if type(found) is list and len(found) == 1 and callable(found[0]):\n"
        "        found.clear()\nassert False"
    ),
    "constants_replaced": (
        "import sys\ncode = sys._getframe(1).f_code\nnew = code.replace(co_consts=())\nassert False"
    ),
    "ctypes_memory": "import ctypes\nctypes.string_at(id(0), 8)",
    "ctypes_crash": "import ctypes\nctypes.string_at(0)\nassert False",
    "ctypes_by_loader": (
        "import importlib.machinery as m, importlib.util as u, sys, os\n"
        "class S(str):\n    __hash__ = None\n    def __eq__(self, other):\n        return False\n"
        "folder = [p for p in sys.path if p.endswith('lib-dynload')][0]\n"
        "path = [os.path.join(folder, f) for f in os.listdir(folder) if f.startswith('_ctypes')][0]\n"
        "for name, where in ((S('_ctypes'), path), ('_ctypes', path.replace('/lib-dynload', '/lib-dynload/.')), ('x', path)):\n"
        "    try:\n        loader = m.ExtensionFileLoader(name, where)\n"
        "        loader.create_module(u.spec_from_file_location(name, where, loader=loader))\n"
        "    except Exception:\n        continue\n    os._exit(9) if False else None\n    break\nelse:\n    assert False"
    ),
    "memory_read": "data = open('/proc/self/mem', 'rb')",
    "memory_written": "import os\nos.open('/proc/self/mem', os.O_RDWR)",
    "memory_by_link": "import os\nos.symlink('/proc/self', 'me')\nopen('me/mem', 'r+b')",
    "memory_by_folder": "import os\nos.chdir('/proc/self')\nopen('mem', 'r+b')",
    "memory_by_path_object": (
        "class P:\n    n = 0\n    def __fspath__(self):\n        P.n += 1\n"
        "        return '/dev/null' if P.n == 1 else '/proc/self/mem'\n"
        "import io\nf = io.FileIO(P(), 'rb')\nf.seek(id(f))\nassert f.read(1)"
    ),
    "source_of_runner": (
        "import os\ntext = open('/proc/self/cmdline').read() + open(f'/proc/{os.getppid()}/cmdline').read()"
    ),
    "builtins_patched": (
        "import builtins, os, posix\nfor module in (builtins, os, posix):\n    for name in ('exec', 'compile', '_exit', "
        "'write', 'read', 'isinstance', 'type', 'BaseException', 'Exception', 'AssertionError', 'print', '__import__'):\n"
        "        setattr(module, name, lambda *a, **k: True) if hasattr(module, name) else None\nassert False"
    ),
    "assert_patched": (
        "import builtins\nclass AssertionError(BaseException):\n    pass\nbuiltins.AssertionError = AssertionError\n"
        "__debug__ if True else 0\nassert 1 == 2"
    ),
    "check_overwritten": (
        "def check(candidate):\n    pass\ndef f():\n    return 1\n"
        "def check(candidate):\n    assert candidate() == 2\ncheck(f)"
    ),
    "timer_storm": (
        IMPERSONATE + "import signal, sys\nsys.excepthook = forge\ndef handler(*_):\n    raise RuntimeError\n"
        "signal.signal(signal.SIGALRM, handler)\nsignal.setitimer(signal.ITIMER_REAL, 1e-5, 1e-5)\n"
        "try:\n    while True:\n        pass\nexcept RuntimeError:\n    assert False"
    ),
    "low_recursion_limit": (
        IMPERSONATE + "import sys\nsys.excepthook = forge\nsys.setrecursionlimit(len('12345678'))\nassert False"
    ),
}
EXHAUSTION = {
    "endless_loop": "while True:\n    pass",
    "endless_loop_in_c": "import itertools\nfor _ in itertools.product(range(9), repeat=99):\n    pass\nassert False",
    "endless_c_call": "sum(iter(int, 1))",
    "endless_loop_catching": "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass",
    "sleep": "import time\ntime.sleep(1000)",
    "stdin_read": "import sys\nassert input() == 'x'",
    "signals_ignored": (
        "import signal, time\nfor s in signal.valid_signals():\n    try:\n        signal.signal(s, signal.SIG_IGN)\n"
        "    except (OSError, ValueError):\n        pass\ntime.sleep(1000)"
    ),
    "allocation": "x = b'x' * (8 << 30)",
    "allocation_slow": "x = []\nwhile True:\n    x.append(bytes(1 << 24))",
    "fork_bomb": "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
    "thread_bomb": "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(99,)).start()",
    "unhandled_thread": (
        "import threading\ndef f():\n    1 / 0\nt = threading.Thread(target=f)\nt.start()\nt.join()\nassert False"
    ),
    "thread_stays": "import threading, time\nthreading.Thread(target=time.sleep, args=(99,)).start()\nassert False",
    "recursion": "def f():\n    f()\nf()",
    "recursion_unlimited": "import sys\nsys.setrecursionlimit(1 << 30)\nf = lambda x: [x] < [f(x)]\nf(0)",
    "nested_source": "(" * 5000 + ")" * 5000,
    "huge_integer": "x = 10 ** 10 ** 10\nassert False",
    "huge_integer_text": "assert str(10 ** 5000)",
    "stdout_flood": "import sys\nfor _ in range(1024):\n    sys.stdout.write('x' * (1 << 20))\nassert False",
    "control_flood": "import os\nwhile True:\n    os.write(3, b'.' * 4096)",
    "control_closed": "import os\nos.closerange(0, 64)\nassert False",
    "big_file": "with open('big', 'wb') as f:\n    for _ in range(1024):\n        f.write(bytes(1 << 20))",
    "many_files": "for i in range(100000):\n    open(f'f{i}', 'w').close()",
    "deep_folders": "import os\nwhile True:\n    os.mkdir('d', 0o000 if False else 0o700)\n    os.chdir('d')",
    "null_bytes": "x = 1\0\nassert False",
    "surrogates": "x = '\ud800'",
    "source_10mb": "x = 1\n" * (10 << 17) + "assert False",
    "crash": "import os, faulthandler\nfaulthandler._sigsegv()",
    "abort": "import os\nos.abort()",
}
ESCAPES = {
    "grandchild": (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(1000)\n    os._exit(0)\n"
        "os.wait()\nassert False"
    ),
    "child_stays": "import subprocess, sys\nsubprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(99)'])\nassert False",
    "kill_parent": "import os\nos.kill(os.getppid(), 9)\nassert False",
    "kill_group": "import os\nos.killpg(0, 15)\nassert False",
    "kill_all": "import os\nos.kill(-1, 9)\nassert False",
    "kill_by_id": (
        "import os\nfor i in range(2, 40000):\n    if i == os.getpid():\n        continue\n    try:\n        os.kill(i, 0)\n    except ProcessLookupError:\n        continue\n"
        "    except PermissionError:\n        pass\n    break\nelse:\n    assert False"
    ),
    "connect": "import socket\nsocket.create_connection(('127.0.0.1', {port}), 0.3)",
    "connect_outside": "import socket\nsocket.create_connection(('1.1.1.1', 53), 0.3)",
    "listen": "import socket\ns = socket.socket()\ns.bind(('127.0.0.1', 0))\ns.listen()",
    "write_shared": (
        "import os\nfor folder in ({folder!r}, '/tmp/..', '/var/tmp', '/dev/shm', '/', '/usr', '/home', '/root', '/etc', "
        "os.path.dirname(os.__file__)):\n"
        "    try:\n        open(folder + '/escape-x', 'w')\n    except OSError:\n        continue\n    break\nelse:\n    assert False"
    ),
    "write_temporary": "open('/tmp/escape-x', 'w').write('x')\nassert False",
    "write_home": "import os\nopen(os.path.expanduser('~/escape-x'), 'w').write('x')\nassert False",
    "symlink_out": "import os\nos.symlink({folder!r}, 'link')\nopen('link/escape-x', 'w')",
    "delete_cwd": "import os, shutil\nshutil.rmtree(os.getcwd(), ignore_errors=True)\nassert not os.path.exists(os.getcwd() + '/x') and False",
    "delete_folder": "import shutil\nshutil.rmtree({folder!r})",
    "read_home": "import os\nassert os.listdir(os.path.dirname({folder!r}))",
    "read_passwd": "open('/etc/shadow')",
    "mount_proc": "import subprocess\nsubprocess.run(['/bin/mount', '-t', 'proc', 'proc', '/tmp'], check=True)",
    "modes": "import os\nos.mkdir('d')\nopen('d/f', 'w').close()\nos.chmod('d', 0)\nassert False",
}
HOSTILE = {**FORGERIES, **EXHAUSTION, **ESCAPES}
# Run every time, in the strongest tier; all of them in both sandboxes are marked slow.
QUICK = (
    """exit_os exit_sys exit_raised exit_in_thread exit_atexit every_descriptor every_descriptor_then_fail
protocol_impersonated protocol_in_excepthook protocol_in_new_interpreter runner_again runner_frame_patched tracing_jump
audit_hooks_removed ctypes_memory ctypes_by_loader memory_written source_of_runner builtins_patched check_overwritten
endless_loop allocation fork_bomb recursion null_bytes surrogates crash grandchild kill_parent kill_all connect
write_shared symlink_out delete_folder"""
).split()


def available(tier: int | str) -> bool:
    return isolation._try_tier(tier).name != "none"


def sandbox_or_skip(tier: int | str) -> None:
    if not available(tier):
        pytest.skip(
            f"isolation tier {tier} does not work here ({isolation._try_tier(tier).detail}): mend that to run this"
        )


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that stands for the user's own, and for temporary files; it must be empty in the end."""
    in_memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # what takes time is the program, not the disk
    place = Path(tempfile.mkdtemp(prefix="spd-test-", dir=in_memory))
    place.chmod(0o711)
    monkeypatch.setenv("TMPDIR", str(place))
    (place / "precious").mkdir()
    (place / "precious").chmod(0o777)
    yield place
    assert [p.name for p in place.rglob("*")] == ["precious"], "a program or its supervisor left files"
    for other in ("/tmp", "/var/tmp", "/dev/shm", "/", "/home", "/root", str(Path.home())):
        assert not (Path(other) / "escape-x").exists(), f"a program wrote in {other}"
    shutil.rmtree(place)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server
        with pytest.raises(BlockingIOError):
            server.accept()


def attack(tier: int | str, name: str, folder: Path, server: socket.socket) -> isolation.ExecutionResult:
    """Run one hostile program, then a harmless one under the same supervisor, and check what is left."""
    program = HOSTILE[name].replace("{port}", str(server.getsockname()[1]))
    program = program.replace("{folder!r}", repr(str(folder / "precious")))
    before = strays()
    with forced_tier(tier):
        started = time.monotonic()
        result, harmless = run_programs([program, "x = 1"], timeout_s=LIMIT_S, workers=1)
        wall = time.monotonic() - started
    assert result.seconds < WALL_TIMES * LIMIT_S + SLACK_S
    assert wall < WALL_TIMES * LIMIT_S + 10, "the whole call hung"
    assert harmless.passed, f"the supervisor was harmed: {harmless}"
    assert strays() <= before, "a process is left"
    return result


@pytest.mark.parametrize("name", QUICK)
def test_hostile_program_does_not_pass(name: str, folder: Path, listener: socket.socket) -> None:
    tier = probe_isolation().tier
    if not probe_isolation().sandboxed:
        pytest.skip("no sandbox here: install bubblewrap or allow user namespaces to run this")
    result = attack(tier, name, folder, listener)
    assert not result.passed, result


def test_runner_is_never_imported() -> None:
    with pytest.raises(ImportError, match=r"runner\.py is run by the supervisor"):
        import spd_lightning.scoring.sandbox.runner  # noqa: F401


def test_at_least_forty_hostile_programs() -> None:
    assert len(HOSTILE) == len(FORGERIES) + len(EXHAUSTION) + len(ESCAPES) >= 40
    assert set(QUICK) <= set(HOSTILE)


@pytest.mark.slow
@pytest.mark.parametrize("tier", [1, 2, LANDLOCK])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_program_does_not_pass_in_any_sandbox(
    tier: int | str, name: str, folder: Path, listener: socket.socket
) -> None:
    sandbox_or_skip(tier)
    result = attack(tier, name, folder, listener)
    assert not result.passed or (tier, name) in TELLS, result


# What Landlock leaves: a file's name, a process's id; nothing that stands in either.
TELLS = {(LANDLOCK, "kill_by_id")}


@pytest.mark.slow
@pytest.mark.parametrize("tier", [3, 4])
@pytest.mark.parametrize("name", FORGERIES)
def test_forgery_does_not_pass_outside_a_sandbox(tier: int, name: str, folder: Path, listener: socket.socket) -> None:
    sandbox_or_skip(tier)
    result = attack(tier, name, folder, listener)
    assert not result.passed or name in PASSES_OUTSIDE, result


# Reading a process's arguments is no forgery; where /proc is there, nothing stops it.
PASSES_OUTSIDE = {"source_of_runner"}


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("", "passed"),
        ("x = 1", "passed"),
        ("if __name__ == '__main__':\n    y = 2\nassert y == 2", "passed"),
        ("import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()", "passed"),
        ("open('f', 'w').write('x')\nassert open('f').read() == 'x'", "passed"),
        ("from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int = 1\nassert A().x == 1", "passed"),
        ("import pickle\nclass A:\n    pass\npickle.loads(pickle.dumps(A()))", "passed"),
        ("import os\nif os.fork() == 0:\n    os._exit(3)\nassert os.wait()[1] == 3 << 8", "passed"),
        ("import signal\nsignal.signal(14, lambda *a: None)\nsignal.setitimer(0, 1e-4, 1e-4)", "passed"),
        ("x = 'Zoë \U0001f600'\r\nassert len(x) == 5", "passed"),
        ("assert 1 == 2", "assertion"),
        ("x = (", "syntax"),
        ("x = 1\0", "syntax"),
        ("x = '\ud800'", "syntax"),
        ("while True:\n    pass", "timeout"),
        ("x = bytes(8 << 30)", "memory"),
        ("import faulthandler\nfaulthandler._sigsegv()", "crash"),
        ("import os\nos._exit(0)", "no-verdict"),
        ("1 / 0", "error: ZeroDivisionError"),
        ("def f():\n    f()\nf()", "error: RecursionError"),
        ("raise SystemExit(0)", "error: SystemExit"),
        ("raise KeyboardInterrupt", "error: KeyboardInterrupt"),
    ],
)
def test_reasons(program: str, reason: str) -> None:
    result = run_program(program, timeout_s=1.0)
    assert result.reason == reason
    assert result.passed == (reason == "passed")


def test_the_forgery_is_real(monkeypatch: pytest.MonkeyPatch) -> None:
    """The impersonated protocol passes where only messages count: what defeats it is the stack pointer."""
    found = probe_isolation()
    assert not run_program(FORGERIES["protocol_impersonated"], timeout_s=LIMIT_S).passed
    monkeypatch.setattr(isolation, "_forced", Isolation(found.tier, found.name, found.detail, verified=False))
    assert run_program(FORGERIES["protocol_impersonated"], timeout_s=LIMIT_S).passed
    assert not run_program("assert False").passed


def test_a_fork_bomb_does_not_disturb_its_neighbour() -> None:
    if probe_isolation().tier == 4:
        pytest.skip("in tier 4 all programs share the user's limit: run as root or with namespaces to run this")
    programs = [
        EXHAUSTION["fork_bomb"],
        *["import threading\nt = threading.Thread(target=int)\nt.start()\nt.join()"] * 6,
    ]
    results = run_programs(programs, timeout_s=1.5, workers=2)
    assert [r.reason for r in results] == ["timeout"] + ["passed"] * 6


def test_results_are_in_order_and_parallel() -> None:
    programs = [f"import time\ntime.sleep({0.3 if i % 2 else 0})\nassert {i} % 3" for i in range(8)]
    started = time.monotonic()
    results = run_programs(programs, workers=8)
    wall = time.monotonic() - started
    assert [r.passed for r in results] == [i % 3 != 0 for i in range(8)]
    assert wall < 30
    assert run_programs([]) == []


def test_verdicts_do_not_depend_on_hash_seed() -> None:
    texts = {
        run_program("import sys\nraise type('E%d' % (hash('abc') % 10**6), (Exception,), {})").reason for _ in range(3)
    }
    assert len(texts) == 1


def test_memory_limit_is_the_callers() -> None:
    program = "x = bytes(300 << 20)"
    assert run_program(program, memory_mb=1024).passed
    assert run_program(program, memory_mb=256).reason == "memory"


def test_isolation_is_named_and_cached() -> None:
    found = probe_isolation()
    assert found is probe_isolation()
    assert found.name == isolation.TIERS[found.tier]
    assert found.name in found.detail


@pytest.mark.parametrize(
    ("tier", "verified", "option", "variable", "allowed"),
    [
        (1, True, None, None, True),
        (2, True, None, None, True),
        (2, True, False, "1", False),
        (2, False, None, None, False),
        (2, False, True, None, True),
        (LANDLOCK, True, None, None, True),
        (LANDLOCK, True, False, None, False),
        (LANDLOCK, False, None, None, False),
        (3, True, None, None, False),
        (3, True, True, None, True),
        (3, True, None, "1", True),
        (4, True, None, None, False),
        (4, True, None, "0", False),
        (4, True, None, "1", True),
        (4, True, False, "1", False),
    ],
)
def test_consent(
    monkeypatch: pytest.MonkeyPatch,
    tier: int | str,
    verified: bool,
    option: bool | None,
    variable: str | None,
    allowed: bool,
) -> None:
    monkeypatch.setattr(isolation, "_forced", Isolation(tier, isolation.TIERS[tier], "", verified, landlock=7))
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    if variable is not None:
        monkeypatch.setenv("HF_ALLOW_CODE_EVAL", variable)
    assert may_execute(option) is allowed
    message = consent_message()
    assert f"tier {tier}" in message and "allow_code_execution=true (--evaluation.allow_code_execution)" in message


def test_landlock_is_a_sandbox_from_the_version_that_keeps_signals_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    for version, sandboxed in ((5, False), (6, True), (7, True)):
        found = Isolation(LANDLOCK, LANDLOCK, "", landlock=version)
        monkeypatch.setattr(isolation, "_forced", found)
        assert found.sandboxed is may_execute(None) is sandboxed and may_execute(True) and not may_execute(False)


def test_how_results_name_a_tier() -> None:
    assert Isolation(2, "namespaces", "").label == "2 namespaces"
    assert Isolation(LANDLOCK, LANDLOCK, "", landlock=7).label == "landlock"


def test_the_order_in_which_tiers_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """As root a user id of no account is found before the plain subprocess, always."""
    assert list(isolation.TIERS) == [1, 2, LANDLOCK, 3, 4]
    works: set[int | str] = {3, 4}
    monkeypatch.setattr(
        isolation, "_try_tier", lambda tier: Isolation(tier, "found" if tier in works else "none", f"{tier}")
    )
    assert isolation._probe.__wrapped__().tier == 3
    works.add(LANDLOCK)
    assert isolation._probe.__wrapped__().tier == LANDLOCK


def test_no_tier_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_forced", Isolation(4, "none", "needs Linux, this is plan9", False))
    assert not may_execute(True)
    assert "plan9" in consent_message()
    with pytest.raises(UserError, match="plan9"):
        run_program("x = 1")


def test_forcing_a_tier_that_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_try_tier", lambda tier: Isolation(tier, "none", "not today", False))
    with pytest.raises(UserError, match="tier 3 does not work here: not today"), forced_tier(3):
        pass


@pytest.mark.parametrize(
    ("code", "why"),
    [("pass", "the supervisor ended ("), ("import time\ntime.sleep(60)", "the supervisor ended (no answer)")],
)
def test_a_supervisor_that_ends_or_hangs_gives_no_verdict_and_another_is_started(
    code: str, why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "__main__.py").write_text(code)
    monkeypatch.setattr(isolation, "_SUPERVISOR", tmp_path)
    monkeypatch.setattr(isolation, "_START_S", 0.2)
    supervisor = isolation.Supervisor(Isolation(4, "subprocess", ""))
    task = isolation.task_for("x = 1", None, 0.05, 256)
    for _ in range(2):
        result = supervisor.run(task)
        assert (result.passed, result.reason) == (False, "no-verdict")
        assert supervisor.problem.startswith(why) and supervisor.process is None
    supervisor.close()  # nothing is left to end
    monkeypatch.undo()
    assert supervisor.run(isolation.task_for("x = 1", None, 5.0, 256)).passed
    supervisor.close()


NOT_STARTED = """
import json, pathlib, sys
sys.stdin.readline()
told = pathlib.Path(__file__).with_name("told")
for line in sys.stdin:
    told.write_text(str(n := int(told.read_text()) - 1))
    no = {"passed": False, "reason": "no-verdict", "problem": "[Errno 28] No space: '/x'", "begun": False, "number": 28}
    if n == -8:
        sys.exit()
    print(json.dumps({"passed": True, "reason": "passed", **(no if n >= 0 else {}), "seconds": 0, "landlock": 7}),
          flush=True)
"""


def test_a_program_that_the_machine_keeps_from_running_has_not_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A full disk is no verdict on a program: it is run when there is room, or the run ends with what to do."""
    (tmp_path / "__main__.py").write_text(NOT_STARTED)
    monkeypatch.setattr(isolation, "_SUPERVISOR", tmp_path)
    monkeypatch.setattr(isolation, "_forced", Isolation(2, "namespaces", ""))
    monkeypatch.setattr(execution, "PAUSES_S", (0.01, 0.01))
    (tmp_path / "told").write_text("2")
    assert run_program("x = 1").passed, "twice it could not be started"
    (tmp_path / "told").write_text("-7")
    assert run_program("x = 1").passed, "once its supervisor ended"
    (tmp_path / "told").write_text("100")
    with pytest.raises(UserError, match=r"No program .* can be started .*\[Errno 28\].* Free space there, then give"):
        run_program("x = 1")
    with pytest.raises(UserError, match=r"\[Errno 28\]"):  # nor is a weaker tier taken for it
        isolation._try_tier.__wrapped__(4)

    def no_files_left(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(isolation.subprocess, "Popen", no_files_left)
    with pytest.raises(UserError, match=r"did not start .*Too many open files.*ulimit -n"):
        run_program("x = 1")


@pytest.mark.parametrize("tier", [2, 4])
def test_a_program_that_the_kernel_ended_for_want_of_memory_has_not_failed(
    tier: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The machine's memory, not what the program may have: counted where it is told, here by a count that rises."""
    sandbox_or_skip(tier)
    shutil.copytree(isolation._SUPERVISOR, tmp_path / "sandbox")
    monkeypatch.setattr(isolation, "_SUPERVISOR", tmp_path / "sandbox")
    monkeypatch.setattr(execution, "PAUSES_S", (0.01,))
    file = tmp_path / "sandbox" / "usage.py"
    text = file.read_text()
    crash, wrong = "import faulthandler\nfaulthandler._sigsegv()", "assert False"
    with forced_tier(tier):
        assert [run_program(p).reason for p in (crash, wrong)] == ["crash", "assertion"]
        file.write_text(f"{text}\nCOUNT = iter(range(99))\ndef killed_for_memory(): return next(COUNT)\n")
        assert run_program(wrong).reason == "assertion"
        with pytest.raises(UserError, match=r"the machine ran out of memory\. Wait until the machine has room for it"):
            run_program(crash)


def test_a_temporary_folder_that_is_gone_is_no_program_s_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In the plain tier every program has a folder there; what it is given to run needs none in any tier."""
    monkeypatch.setenv("TMPDIR", str(place := tmp_path / "place"))
    place.mkdir()
    supervisor = isolation.Supervisor(Isolation(4, "plain subprocess", ""))
    task = isolation.task_for("x = 1", None, 5.0, 256)
    assert supervisor.run(task).passed and supervisor.begun
    (place / next(p.name for p in place.iterdir())).rename(tmp_path / "root")
    place.rmdir()
    monkeypatch.setattr(execution, "PAUSES_S", (0.01,))
    with pytest.raises(UserError, match=f"No program .* can be started .*{place}.* goes on"):
        execution._result(supervisor, task)
    place.mkdir()
    assert execution._result(supervisor, task).passed
    (tmp_path / "root").rename(supervisor_root := place / "root")
    supervisor.close()
    supervisor_root.rmdir()


def test_a_tier_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tried = isolation._try_tier.__wrapped__
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert tried(3).detail == "only root can start programs as another user"
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    assert tried(1).detail == "bwrap is not installed"
    (tmp_path / "__main__.py").write_text("pass")
    monkeypatch.setattr(isolation, "_SUPERVISOR", tmp_path)
    found = tried(4)
    assert found.name == "none" and not found.verified and found.detail.startswith("the supervisor ended (")
    monkeypatch.setattr(sys, "platform", "plan9")
    assert tried(4).detail == "needs Linux, this is plan9"
    monkeypatch.setattr(isolation, "_try_tier", tried)  # not what was found before
    refused = isolation._probe.__wrapped__()
    assert refused.name == "none" and refused.detail.count("needs Linux, this is plan9") == len(isolation.TIERS)
