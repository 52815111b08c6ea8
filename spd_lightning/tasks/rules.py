"""How a row of a user's own task is scored: the rules by name, and what each needs of a row. They are applied in
``scoring/rules.py``."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from spd_lightning.tasks.golds import NUMBER_WANTED, is_comparable
from spd_lightning.tasks.numbers import gold_number

RULES: dict[str, str] = {
    "exact": "the answer's first line (as many lines as the target has) is an accepted text",
    "contains": "an accepted text stands in the answer, as words of its own",
    "regex": "a pattern is found in the answer",
    "number": "the answer's number is an accepted one",
    "letter": "the letter that the answer names is an accepted one",
    "last_word": "the answer's last word is an accepted text",
    "choice_likelihood": "the likeliest of the letters of `choices` is the target",
    "tests": "the completion is Python that passes `tests`",
    "python": "FUNCTION(completion, targets) of your FILE.py returns a true value (`python:FILE.py:FUNCTION`)",
}
ALONE = ("choice_likelihood", "tests")  # a file scored so has no other rule in it
NORMALISE: dict[str, str] = {
    "case": "upper and lower case are equal",
    "space": "any white space is one space",
    "punctuation": "quotes, emphasis, final punctuation and `the answer is` around a text are dropped",
    "accents": "letters with and without accents are equal",
    "articles": "a, an and the at the beginning are dropped",
}
DEFAULT_NORMALISE = ("case", "space", "punctuation")


def without_use(score: str | None) -> tuple[str, ...]:
    """The fields of a row that a rule does not read; None is the rule that the target implies."""
    if score in ALONE:
        return ("targets", "normalise")
    return ("normalise",) if str(score).partition(":")[0] in ("number", "letter", "python") else ()


@dataclass(frozen=True)
class Rule:
    """One row's rule.

    Attributes:
        name: Key of `RULES`.
        targets: Accepted answers, at least one; patterns for ``regex``.
        normalise: Keys of `NORMALISE`, applied to answer and target before they are compared.
        file: For ``python``: the file.
        function: For ``python``: its function.
        content: For ``python``: SHA-256 of the file, so that scores by an older one are not taken.
    """

    name: str
    targets: tuple[str, ...]
    normalise: tuple[str, ...] = DEFAULT_NORMALISE
    file: str = ""
    function: str = ""
    content: str = ""


def make_rule(score: str, targets: Sequence[str], normalise: Sequence[str] | None, folder: Path) -> Rule:
    """The rule of a row, checked.

    Args:
        score: What the row or the file names.
        targets: Accepted answers.
        normalise: Keys of `NORMALISE`; None for the default (nothing for ``regex``).
        folder: Where a relative FILE.py is looked for before the working folder.

    Raises:
        ValueError: Saying what the value at fault is and what it must be.
    """
    name, _, rest = score.partition(":")
    if name not in RULES or bool(rest) is not (name == "python"):
        known = ", ".join("python:FILE.py:FUNCTION" if known == "python" else known for known in RULES)
        raise ValueError(f"`score` is {score!r}, but it must be one of {known}")
    chosen = tuple(normalise) if normalise is not None else () if name == "regex" else DEFAULT_NORMALISE
    if unknown := [option for option in chosen if option not in NORMALISE]:
        raise ValueError(f"`normalise` is {list(chosen)!r} ({unknown[0]!r} is not known), but it must be a list of "
                         f"{', '.join(NORMALISE)}")  # fmt: skip
    for target in targets:
        if wanted := _wanted(name, target):
            raise ValueError(f"the accepted answer {target!r} does not suit score {name!r}: it must be {wanted}")
    if name != "python":
        return Rule(name, tuple(targets), chosen)
    file, _, function = rest.rpartition(":")
    path = next((p for p in (folder / file, Path(file)) if p.is_file()), None)
    if path is None or not function.isidentifier():
        raise ValueError(f"`score` is {score!r}, but it must be python:FILE.py:FUNCTION with a file that is there")
    if wrong := _no_such_function(path.read_bytes(), function):
        raise ValueError(f"`score` is {score!r}, but {path.name} {wrong}")
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    return Rule(name, tuple(targets), chosen, str(path), function, content)


@lru_cache(maxsize=64)
def _no_such_function(source: bytes, name: str) -> str:
    """Why a file's function cannot score, read without running the file; empty where it may."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        return f"is no Python that can be read ({error})"
    made = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    for node in reversed(made):
        if node.name == name:
            takes, free = node.args, len(node.args.defaults)
            most = len(takes.posonlyargs) + len(takes.args)
            named = any(default is None for default in takes.kw_defaults)
            if not named and most - free <= 2 and (most >= 2 or takes.vararg):
                return ""
            return f"has {name}({ast.unparse(takes)}), which cannot be called as {name}(completion, targets)"
    bound = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    bound |= {n.asname or n.name for n in ast.walk(tree) if isinstance(n, ast.alias)}
    bound |= {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    if {name, "*"} & bound:
        return ""
    there = ", ".join(node.name for node in made) or "none"
    return f"has no function {name} (there: {there})"


def _wanted(name: str, target: str) -> str:
    """What an accepted answer must be; empty where it is that."""
    if name == "number" and gold_number(target) is None:
        return NUMBER_WANTED
    if name == "letter" and not re.fullmatch("[A-Z]", target.strip()):
        return "one letter, A to Z"
    if name == "last_word" and (len(target.split()) != 1 or not is_comparable(target)):
        return "one word"
    if name in ("exact", "contains") and not is_comparable(target):
        return "more than quotes and punctuation, which comparing drops"
    if name == "regex":
        try:
            re.compile(target)
        except re.error as error:
            return f"a regular expression ({error})"
    return ""
