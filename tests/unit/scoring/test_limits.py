"""What a program may use, counted over all its processes; what it leaves behind; where a completion ends."""
# ruff: noqa: E501 (a program stands on one line where it can)

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from spd_lightning.scoring import isolation
from spd_lightning.scoring.execution import ExecutionResult, TestedProgram, judge_programs, run_program
from spd_lightning.scoring.isolation import LANDLOCK, WALL_TIMES, forced_tier
from spd_lightning.scoring.parts import split

SANDBOX = Path(isolation.__file__).with_name("sandbox")
EQUAL = "assert f(1) == 2"
CHILDREN = """
import os, time
def f(x):
    ready, started = os.pipe()
    for i in range(3):
        if os.fork() == 0:
            held = b"x" * ({mb} << 20)
            os.write(started, b".")
            time.sleep(60)
    for i in range(3):
        os.read(ready, 1)
    time.sleep(0.2)
    return 2
"""
OUTSIDE_NAMESPACES = [LANDLOCK, 3, 4]


def judge(program: str, tests: str = EQUAL, timeout_s: float = 10.0, memory_mb: int = 1024) -> ExecutionResult:
    programs = [TestedProgram(program, split("", tests))]
    return judge_programs(programs, timeout_s=timeout_s, memory_mb=memory_mb, one_process=False)[0].result


def tier_or_skip(tier: int | str) -> None:
    if isolation._try_tier(tier).name == "none":
        pytest.skip(f"isolation tier {tier} does not work here ({isolation._try_tier(tier).detail}): mend that")


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files, which any user may enter."""
    place = Path(tempfile.mkdtemp(prefix="spd-test-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    place.chmod(0o711)
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def no_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that gives no memory group, so that the supervisor looks by itself."""
    shutil.copytree(SANDBOX, tmp_path / "sandbox", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "sandbox" / "cgroup.py").open("a") as file:
        file.write("\n\ndef places():\n    return []\n")
    monkeypatch.setattr(isolation, "_SUPERVISOR", tmp_path / "sandbox")


@pytest.fixture
def sandbox() -> Iterator[None]:
    """The sandbox's modules by their bare names."""
    sys.path.insert(0, str(SANDBOX))
    try:
        yield
    finally:
        sys.path.remove(str(SANDBOX))


@pytest.fixture
def cgroup(sandbox: None) -> ModuleType:
    return importlib.import_module("cgroup")


def test_children_share_one_limit_of_memory() -> None:
    """Whatever holds the limit here: a memory group, or the supervisor's looks."""
    assert judge(CHILDREN.format(mb=110), memory_mb=256).reason == "memory"
    assert judge(CHILDREN.format(mb=30), memory_mb=256).passed


def test_children_share_one_limit_where_the_supervisor_looks(no_groups: None) -> None:
    assert judge(CHILDREN.format(mb=110), memory_mb=256).reason == "memory"
    assert judge(CHILDREN.format(mb=30), memory_mb=256).passed


@pytest.mark.slow
@pytest.mark.parametrize("tier", [1, 2, LANDLOCK, 3, 4])
def test_three_children_of_520_megabytes_fail_a_limit_of_1024(tier: int | str, no_groups: None) -> None:
    tier_or_skip(tier)
    with forced_tier(tier):
        assert judge(CHILDREN.format(mb=520)).reason == "memory"


def test_what_children_share_counts_once(no_groups: None) -> None:
    program = CHILDREN.replace('held = b"x" * ({mb} << 20)', "pass").replace(
        "def f(x):", "def f(x):\n    held = b'x' * (150 << 20)"
    )
    assert judge(program, memory_mb=256).passed


def test_processor_time_counts_and_waiting_does_not() -> None:
    assert judge("import time\ndef f(x):\n    time.sleep(1.2)\n    return 2", timeout_s=0.6).passed
    spin = "import time\ndef spin(s):\n    end = time.process_time() + s\n    while time.process_time() < end:\n        pass\n"
    assert judge(spin + "def f(x):\n    spin(9)", timeout_s=0.4).reason == "timeout"
    sleeper = judge("import time\ndef f(x):\n    time.sleep(99)", timeout_s=0.4)
    assert sleeper.reason == "timeout" and sleeper.seconds >= WALL_TIMES * 0.4


def test_processor_time_is_that_of_all_processes() -> None:
    """Children that were waited for, and one that nobody waits for."""
    program = """
import os, time
def spin(s):
    end = time.process_time() + s
    while time.process_time() < end:
        pass
def f(x):
    for i in range(3):
        if os.fork() == 0:
            spin({seconds})
            os._exit(0)
        os.wait()
    time.sleep({pause})
    return 2
"""
    assert judge(program.format(seconds=0.5, pause=0.2), timeout_s=1.0).reason == "timeout"
    assert judge(program.format(seconds=0.1, pause=0.2), timeout_s=1.0).passed
    unwaited = program.replace("        os.wait()\n", "").format(seconds=0.5, pause=60)
    assert judge(unwaited, timeout_s=1.0).reason == "timeout"


@pytest.mark.parametrize("tier", OUTSIDE_NAMESPACES)
def test_deep_and_closed_folders_leave_nothing_behind(tier: int | str, temporary: Path) -> None:
    tier_or_skip(tier)
    program = """
import os, stat
home = os.getcwd()
for i in range(3000):
    os.mkdir("d")
    os.chdir("d")
open("f", "w").close()
os.chdir(home)
for path in ("closed", "closed/inner", "closed/inner/most"):
    os.mkdir(path)
    open(path + "/f", "w").close()
os.symlink("/", "closed/root")
os.mkfifo("closed/pipe")
os.mkdir("never", 0)
for path in ("closed/inner/most", "closed/inner", "closed"):
    os.chmod(path, 0)
os.chmod(home, 0)
def f(x):
    return 2
"""
    with forced_tier(tier):
        found = judge(program)
    assert found.passed, found
    assert list(temporary.iterdir()) == []


def test_what_is_removed_is_not_what_a_link_names(temporary: Path, sandbox: None) -> None:
    leftovers = importlib.import_module("leftovers")
    kept = temporary / "kept"
    kept.mkdir(mode=0o500)
    (temporary / "gone").mkdir()
    (temporary / "gone" / "link").symlink_to(kept)
    leftovers.remove(str(temporary / "gone"))
    assert not (temporary / "gone").exists() and kept.stat().st_mode & 0o777 == 0o500


def test_folders_are_removed_whatever_their_depth_and_modes(temporary: Path, sandbox: None) -> None:
    leftovers = importlib.import_module("leftovers")
    gone = here = temporary / "gone"
    here.mkdir()
    for _ in range(100):
        (here / "file").write_text("x")
        (here / "beside").mkdir()
        here = here / "deeper"
        here.mkdir()
    for folder in (here, here.parent, gone / "deeper", gone / "beside", gone):
        folder.chmod(0)
    leftovers.remove(str(gone))
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    "ending", ["if False: \\", "x = 1; \\", "while 0: \\", "lambda: \\", "'''", "(", "def g(): \\", "@property", "#\\"]
)
def test_no_end_of_a_completion_takes_the_tests_in(ending: str) -> None:
    """In one text each of these would make the one line of the tests a part of itself, or nothing at all."""
    program = TestedProgram(f"def f(x):\n    return 3\n{ending}", split("", EQUAL))
    verdict = judge_programs([program], timeout_s=5.0)[0]
    assert not verdict.result.passed and verdict.one_process is not None and not verdict.one_process.passed


def test_the_swallowed_test_is_real_and_tests_that_share_a_process_are_apart_too() -> None:
    swallowing = "class Node:\n    pass\nif False: \\"
    assert run_program(f"{swallowing}\nassert isinstance(Node(), int)").passed
    program = TestedProgram(swallowing, split("", "assert Node.x == 2"))
    assert program.parts.shared and not judge_programs([program], timeout_s=5.0)[0].result.passed


def test_the_tests_are_compiled_without_what_the_program_imports_from_the_future() -> None:
    program = "from __future__ import annotations\nclass A:\n    x = 1"
    tests = "def g(y: A.x): pass\nassert g.__annotations__ == {'y': 1}"
    verdict = judge_programs([TestedProgram(program, split("", tests))], timeout_s=5.0)[0]
    assert verdict.shared and verdict.result.passed


# ---- memory groups


@pytest.mark.parametrize(
    ("own", "mounts", "passes_on", "expected"),
    [
        ("4:memory:/a/b\n0::/\n", "30 1 0:1 / /sys/m rw - cgroup cgroup rw,memory", {}, [(1, "/sys/m/a/b", "/sys/m/a/b")]),
        ("4:cpu,memory:/a/b\n", "30 1 0:1 /a /m rw - cgroup c rw,cpu,memory", {}, [(1, "/m/b", "/m/b")]),
        ("4:memory:/a\n", "30 1 0:1 /other /m rw - cgroup cgroup rw,memory", {}, []),
        ("3:cpu:/a\n", "30 1 0:1 / /m rw - cgroup cgroup rw,cpu", {}, []),
        ("0::/u/x.scope\n", "30 1 0:1 / /c rw - cgroup2 cgroup2 rw", {"/c/u": "cpu memory"}, [(2, "/c/u", "/c/u/x.scope")]),
        ("0::/\n", "30 1 0:1 / /c rw - cgroup2 cgroup2 rw", {"/c": "memory pids"}, [(2, "/c", "/c")]),
        ("0::/u/x.scope\n", "30 1 0:1 / /c rw - cgroup2 cgroup2 rw", {"/c/u": "cpu"}, []),
    ],
)  # fmt: skip
def test_where_a_memory_group_may_be(
    cgroup: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    own: str,
    mounts: str,
    passes_on: dict[str, str],
    expected: list[tuple[int, str, str]],
) -> None:
    files = {"/proc/self/cgroup": own, "/proc/self/mountinfo": mounts}
    files |= {f"{folder}/cgroup.subtree_control": text for folder, text in passes_on.items()}

    def read(path: str) -> str:
        if path not in files:
            raise FileNotFoundError(path)
        return files[path]

    monkeypatch.setattr(cgroup, "read", read)
    assert cgroup.places() == expected


@pytest.mark.parametrize("version", [1, 2])
def test_a_memory_group_is_limited_counted_and_given_back(
    cgroup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: int
) -> None:
    """On a folder of files that stands for the kernel's; the real one is tried by `Isolation` wherever it is there."""
    own = tmp_path / "own"
    own.mkdir()
    (tmp_path / f"spd-{2**22 + 1}").mkdir()  # of a process that cannot be: its supervisor was killed
    monkeypatch.setattr(cgroup, "places", lambda: [(version, str(tmp_path), str(own))])
    limit, swap, count = (
        ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.oom_control")
        if version == 1
        else ("memory.max", "memory.swap.max", "memory.events")
    )
    real = os.mkdir

    def mkdir(path: str) -> None:
        real(path)
        Path(path, limit).write_text("max")
        Path(path, count).write_text("low 0\noom_kill 0\n")

    monkeypatch.setattr(cgroup.os, "mkdir", mkdir)
    group = cgroup.Group()
    folder = tmp_path / f"spd-{os.getpid()}"
    assert group.folder == str(folder) and (folder / "cgroup.procs").read_text() == str(os.getpid())
    assert not (tmp_path / f"spd-{2**22 + 1}").exists()
    assert group.limit(1024) and (folder / limit).read_text() == str((1024 + 64) << 20)
    assert (folder / swap).read_text() == (str((1024 + 64) << 20) if version == 1 else "0")
    assert group.kills() == 0
    (folder / count).write_text("low 0\noom_kill 3\noom_group_kill 1\n")
    assert group.kills() == 3
    for file in folder.iterdir():
        file.unlink()
    group.close()
    assert not folder.exists() and (own / "cgroup.procs").read_text() == str(os.getpid())


def test_a_group_that_does_not_take_the_limit_is_not_believed(
    cgroup: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = cgroup.Group.__new__(cgroup.Group)
    group.folder, group.limited, group.version = "/nowhere", 0, 1
    group.limit_file, group.swap_file = "/nowhere/a", "/nowhere/b"
    monkeypatch.setattr(cgroup, "write", lambda path, text: None)
    monkeypatch.setattr(cgroup, "read", lambda path: "9223372036854771712\n")
    assert group.limit(1024) is False and group.limited == 0
