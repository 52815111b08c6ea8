"""What a program can do in each tier, door by door: the table of ``docs/sandbox.md`` is what these programs find.

Each is a completion whose test passes exactly where the door is open. They run as whoever runs this; the table is that of
a user who is not root (in tier 3: of programs that root starts).
"""
# ruff: noqa: E501 (a program stands on one line where it can)

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from spd_lightning.scoring.execution import TestedProgram, judge_programs
from spd_lightning.scoring.isolation import LANDLOCK, Isolation, _settings, forced_tier
from spd_lightning.scoring.parts import split

COLUMNS: tuple[int | str, ...] = (1, 2, LANDLOCK, 3, 4)
NOBODY = 65534

NEAR = "import os\nme, parent = os.getpid(), os.getppid()\nnear = [p for p in range(max(2, me - 300), me + 300) if p != me]\n"
OUTSIDE = (
    "import os\nme, parent = os.getpid(), os.getppid()\nassert parent > 1\n"
    "others = [int(p) for p in open(f'/proc/{parent}/task/{parent}/children').read().split() if int(p) != me]\n"
    "root = os.open('/', os.O_RDONLY)\ndef memory(p):\n    os.close(os.open(f'proc/{p}/mem', os.O_RDONLY, dir_fd=root))\n"
)
AMONG = (
    "for p in near:\n    try:\n        {do}\n    except OSError:\n        continue\n    break\nelse:\n    assert False"
)

DOORS = {
    "read the user's files": "import os\nassert os.listdir({folder!r}) is not None\nopen({folder!r} + '/file').read()",
    "write outside its folder": "open({folder!r} + '/made', 'w').close()",
    "change a file's mode": (
        "import os\nos.chmod({folder!r} + '/file', 0o640)\nassert os.stat({folder!r} + '/file').st_mode & 0o777 == 0o640"
    ),
    "learn that a file exists": "import os\nos.stat({folder!r})",
    "use the network": "import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)",
    "write to another's socket by its name": (
        "import socket\na, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\na.sendto(b'x', {folder!r} + '/named')"
    ),
    "share memory of its user (System V)": (
        "import ctypes\nassert ctypes.CDLL(None).shmget(0, 4096, 0o1600) >= 0"
    ),
    "see other processes": "import os\nassert any(n.isdigit() for n in os.listdir('/proc'))",
    "learn that a process exists": "import os\nassert os.getppid() > 1\nos.stat('/proc/%d' % os.getppid())",
    "signal the supervisor": "import os\nassert os.getppid() > 1\nos.kill(os.getppid(), 0)",
    "signal the tests' process": OUTSIDE.replace("others = ", "others = []\n# ") + NEAR + AMONG.format(do="os.kill(p, 0)"),
    "slow another process down": (
        NEAR + AMONG.format(do="os.sched_setaffinity(p, os.sched_getaffinity(p))")
    ),
    "read the memory of the supervisor": OUTSIDE + "memory(parent)",
    "read the memory of the tests' process": OUTSIDE + "assert others\nfor p in others:\n    memory(p)",
    "read the memory of the user's other processes": (
        OUTSIDE + "memory(int(open(f'/proc/{parent}/stat').read().rsplit(')', 1)[1].split()[1]))"
    ),
    "read its own memory": OUTSIDE.replace("others = ", "# ") + "memory('self')",
    "rewrite itself from a child": (
        "import os, subprocess, sys\n"
        "subprocess.run([sys.executable, '-S', '-c', 'open(\"/proc/%d/mem\", \"r+b\")' % os.getpid()], check=True)"
    ),
    "run other programs": "import subprocess\nsubprocess.run(['/bin/true'], check=True)",
    "leave a process behind": "import os\nif os.fork() == 0:\n    os.setsid()\n    import time\n    time.sleep(60)\nassert False",
}  # fmt: skip
LEFT = "leave a process behind"  # its door is open if the process is there afterwards


def strays() -> set[int]:
    """Running interpreters of programs that belong to this process or to nobody."""
    found = set()
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_bytes().rsplit(b")", 1)[1].split()[1])
            if b"The only code beside the program" in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
        except OSError:
            continue
    return {pid for pid in found if parents.get(pid) in (1, os.getpid())} | {
        pid for pid, parent in parents.items() if parent == os.getpid()
    }


def opened(tier: int | str) -> set[str]:
    """The doors that programs find open under a tier."""
    before = strays()
    with (
        tempfile.TemporaryDirectory(prefix="spd-doors-") as place,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as named,
    ):
        os.chmod(place, 0o711)
        folder = Path(place, "precious")
        folder.mkdir()
        folder.chmod(0o777)
        (folder / "file").write_text("x")
        named.bind(str(folder / "named"))
        (folder / "named").chmod(0o777)
        programs = []
        for text in DOORS.values():
            text = text.replace("{port}", str(server.getsockname()[1])).replace("{folder!r}", repr(str(folder)))
            programs.append(TestedProgram(f"{text}\ndef f(x):\n    return 2", split("", "assert f(1) == 2")))
        with forced_tier(tier):
            found = judge_programs(programs, timeout_s=5.0, one_process=False)
    doors = {door for door, verdict in zip(DOORS, found, strict=True) if verdict.result.passed}
    return doors | ({LEFT} if strays() - before else set())


def opened_by_nobody(tier: int | str) -> set[str]:
    """`opened`, in a process that is not root."""
    if os.getuid() != 0:
        return opened(tier)
    done = subprocess.run(
        [_settings(Isolation(3, "", ""))["python"], "-B", "-m", "tests.attacks.doors", str(tier)],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd=Path(__file__).parents[2],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout))


if __name__ == "__main__":
    print(json.dumps(sorted(opened(int(sys.argv[1]) if sys.argv[1].isdigit() else sys.argv[1]))))
