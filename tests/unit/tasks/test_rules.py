"""Rules of a user's own rows: what each needs, and what is said of one that nothing could satisfy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spd_lightning.tasks.rules import DEFAULT_NORMALISE, RULES, make_rule


def test_every_rule_is_made(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def right(completion, targets): return True\n")
    for name in RULES:
        target = {"number": "18", "letter": "B"}.get(name, "word")
        rule = make_rule(f"{name}:mine.py:right" if name == "python" else name, [target], None, tmp_path)
        assert (rule.name, rule.targets) == (name, (target,))
        assert rule.normalise == (() if name == "regex" else DEFAULT_NORMALISE)
    assert (rule.file, rule.function) == (str(tmp_path / "mine.py"), "right")


@pytest.mark.parametrize(
    ("score", "target", "said"),
    [
        ("exakt", "x", "`score` is 'exakt', but it must be one of exact, contains, regex"),
        ("exact:2", "x", "`score` is 'exact:2'"),
        ("python", "x", "`score` is 'python'"),
        ("python:none.py:f", "x", "with a file that is there"),
        ("python:own.py:nope", "x", "own.py has no function nope (there: right, one, keyed)"),
        ("python:own.py:one", "x", "own.py has one(completion), which cannot be called as one(completion, targets)"),
        ("python:own.py:keyed", "x", "own.py has keyed(completion, targets, *, strict), which cannot be called"),
        ("python:broken.py:right", "x", "broken.py is no Python that can be read (invalid syntax"),
        ("number", "many", "the accepted answer 'many' does not suit score 'number': it must be one finite number"),
        ("letter", "Paris", "one letter, A to Z"),
        ("last_word", "two words", "one word"),
        ("contains", ' "." ', "more than quotes"),
        ("regex", "(", "a regular expression"),
    ],
)
def test_what_does_not_suit_is_said(score: str, target: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def right(completion, targets, strict=False): return True\ndef one(completion): return True\n"
        "def keyed(completion, targets, *, strict): return True\n"
    )
    (tmp_path / "broken.py").write_text("def right(completion targets): return True\n")
    with pytest.raises(ValueError, match=re.escape(said)):
        make_rule(score, [target], None, tmp_path)


@pytest.mark.parametrize(
    "source",
    [
        *(
            "def f(completion, targets, strict=False): ...",
            "def f(*texts): ...",
            "f = lambda c, t: True",
            "class f: ...",
        ),
        *(
            "from other import f",
            "from other import *",
            "if True:\n    def f(c, t): ...",
            "def f(c, /, t, **more): ...",
        ),
    ],
)
def test_what_may_be_a_function_is_left_to_the_run(source: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(f"{source}\nraise SystemExit('the file was run')\n")
    assert make_rule("python:own.py:f", ["x"], None, tmp_path).function == "f"


def test_options_of_normalising_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"\('upper' is not known\), but it must be a list of case, space, punctuation"
    ):
        make_rule("exact", ["x"], ["upper"], tmp_path)


def test_a_changed_function_is_another_rule(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def right(completion, targets): return True\n")
    before = make_rule("python:mine.py:right", ["x"], None, tmp_path)
    file.write_text("def right(completion, targets): return False\n")
    assert make_rule("python:mine.py:right", ["x"], None, tmp_path) != before
