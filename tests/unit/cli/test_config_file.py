"""Which option a file sets at which line; its mistakes are in test_mistakes.py."""

from __future__ import annotations

from pathlib import Path

from spd_lightning.cli.config_file import read_config

KNOWN = ("data.num_prompts", "evaluation.limit", "evaluation.tasks", "trainer.callbacks", "seed_everything")
TEXT = """\
seed_everything: 3
data: {num_prompts: 4}
evaluation:
  limit:
    letters: 3
    functions: 4
  tasks: [letters]
trainer:
  callbacks:
    - class_path: A
      init_args: {x: 1}
    - class_path: B
"""


def test_lines_of_options(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(TEXT)
    file = read_config(str(path), KNOWN, {}, "fit")
    options = {name: line for name, line in file.lines.items() if name in KNOWN}
    assert options == {
        "seed_everything": 1,
        "data.num_prompts": 2,
        "evaluation.limit": 4,
        "evaluation.tasks": 7,
        "trainer.callbacks": 9,
    }
    assert file.place("evaluation.limit") == f"{path}, line 4"
    assert file.place("trainer.callbacks.init_args") == f"{path}, line 11"
    assert file.place("data") == f"{path}, line 2" and file.place("data.top_k") is None


def test_a_run_s_own_configuration_is_read(tmp_path: Path) -> None:
    """Anchors and merges are YAML too."""
    path = tmp_path / "config.yaml"
    path.write_text("evaluation:\n  limit: &few {letters: 3}\ntrainer:\n  callbacks: null\nseed_everything: 1\n")
    assert "evaluation.limit.letters" in read_config(str(path), KNOWN, {}, "fit").lines
