"""Completion of the shell: what bash offers of the installed command."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from spd_lightning.cli import completion, program, start

PROGRAM = program  # imported before the tests: libraries set variables of the environment when they are


def test_what_nobody_can_type_is_not_offered() -> None:
    script = "strings=(--a 'data_dir --> data.data_dir' --b 'x.y --> z')"
    assert completion.without_links(script) == "strings=(--a --b)"


def test_without_its_package_it_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None))
    monkeypatch.setattr(completion, "importlib", nothing)  # libraries look for packages, too
    assert start.main(["completion", "bash"]) == 2
    assert "Type `pip install shtab`" in capsys.readouterr().err


@pytest.mark.skipif(
    importlib.util.find_spec("shtab") is None or shutil.which("bash") is None,
    reason="needs bash and shtab: pip install -c constraints.txt -e '.[test]' to run it",
)
def test_bash_offers_commands_options_and_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start.main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)

    def offered(*words: str) -> set[str]:
        line = f"""
source ./script
COMP_WORDS=(spd-lightning {" ".join(words)})
COMP_CWORD={len(words)}
COMP_LINE="${{COMP_WORDS[*]}}"
COMP_POINT=${{#COMP_LINE}}
$(complete -p spd-lightning | sed 's/.*-F \\([^ ]*\\).*/\\1/') spd-lightning "${{COMP_WORDS[-1]}}" "" 2>/dev/null
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path)
        return set(done.stdout.split())

    assert {"fit", "runs", "completion"} <= offered("''")
    assert offered("gen") == {"generate"}
    assert offered("fit", "--data.num_p") == {"--data.num_prompts"}
    assert offered("fit", "--dry") == {"--dry_run"}
    assert {"list", "show", "rm"} <= offered("runs", "''")
