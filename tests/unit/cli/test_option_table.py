"""The file of options is what the live parser says, or it is not used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spd_lightning.cli import option_table
from spd_lightning.cli.option_table import FILE, load
from tests.settings import PYTHONPATH

ROOT = Path(__file__).parents[3]
ANEW = "an option or its help has changed: type python -m spd_lightning.cli.option_table"


# The help of a class names the subclasses that are imported, so the parser is made in a process of its own.
LIVE = """
import json, os
from spd_lightning.cli.option_table import WIDTH, make
made = make()
os.environ["COLUMNS"] = str(WIDTH)
from spd_lightning.cli.parser import make_parser, stage_parsers
parser = make_parser()
print(json.dumps([made, {"": parser.format_help(), **{n: s.format_help() for n, s in stage_parsers(parser).items()}}]))
"""


def test_the_file_is_that_of_the_live_parser() -> None:
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    done = subprocess.run([sys.executable, "-c", LIVE], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    made, texts = json.loads(done.stdout.splitlines()[-1])
    found, table = json.loads(FILE.read_text(encoding="utf-8")), load()
    for part in made:
        assert found[part] == made[part], ANEW
    assert table is not None and dict(table.help) == {name: text.rstrip("\n") for name, text in texts.items()}


@pytest.mark.parametrize("changed", ["cli/parser.py", "jsonargparse"])
def test_a_file_of_other_sources_or_libraries_is_not_used(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = option_table.sources()
    monkeypatch.setattr(option_table, "sources", lambda: {**here, changed: "another"})
    assert load.__wrapped__() is None


@pytest.mark.parametrize("text", ["", "{", "{}", "[]"])
def test_a_damaged_file_is_not_used(text: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "options.json").write_text(text)
    monkeypatch.setattr(option_table, "FILE", tmp_path / "options.json")
    assert load.__wrapped__() is None


def test_only_what_makes_options_makes_another_table() -> None:
    text = 'class A:\n    """Help."""\n\n    def __init__(self, x: int = 1) -> None:\n        self.x = x\n'
    same = text.replace("self.x = x", "self.x = 2 * x") + "\n\nclass B:\n    pass\n"
    assert option_table._signatures(text) == option_table._signatures(same)
    for old, new in (("Help", "Other help"), ("= 1", "= 2"), ("x: int", "y: int"), ("int", "float")):
        assert option_table._signatures(text) != option_table._signatures(text.replace(old, new)), new
    command = 'def runs(path: str = "runs") -> None:\n    """List."""\n    print(path)\n'
    same = command.replace("print(path)", "print(Path(path))") + "\n\ndef _own() -> None:\n    pass\n"
    assert option_table._signatures(command) == option_table._signatures(same)
    for old, new in (("List", "Show"), ('"runs"', '"."'), ("path:", "folder:"), ("str", "Path")):
        assert option_table._signatures(command) != option_table._signatures(command.replace(old, new)), new
