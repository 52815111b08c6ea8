"""A user's own rules applied: what a completion answered, and whether the row's rule accepts that."""

from __future__ import annotations

import re
import runpy
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from spd_lightning.errors import UserError
from spd_lightning.scoring.answers import (
    answer_lines,
    answer_part,
    extract_letter,
    extract_number,
    gold_number,
    letters_up_to,
    numbers_equal,
    tidy_text,
)
from spd_lightning.tasks.rules import Rule

Reading = tuple[str | None, bool, str]  # the answer, whether it is right, and why


def apply_rule(rule: Rule, completion: str, stops: Sequence[str] = ()) -> Reading:
    """Answer, verdict and reason of a completion.

    Args:
        rule: Of its row.
        completion: What the model wrote; thinking and turns of others are taken off first.
        stops: It is cut before the first of these.

    Raises:
        UserError: If a function of the user's file fails or is not there.
    """
    text, nothing = answer_part(completion, stops)
    if nothing:
        return None, False, nothing
    return BY_NAME[rule.name](rule, text)


def normalised(text: str, options: Sequence[str]) -> str:
    """A text as it is compared; each option is named in `tasks.rules.NORMALISE`."""
    if "punctuation" in options:
        text = tidy_text(text)
    if "case" in options:
        text = text.casefold()
    if "space" in options:
        text = " ".join(text.split())
    if "accents" in options:
        text = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
    if "articles" in options:
        text = re.sub(r"^(?:a|an|the)\s+", "", text, flags=re.IGNORECASE)
    return text


def _exact(rule: Rule, text: str) -> Reading:
    for target in rule.targets:
        lines, reason = answer_lines(text, target)
        answer = normalised(lines, rule.normalise)
        if answer == normalised(target.strip(), rule.normalise):
            return answer, True, reason
    return answer, False, reason


def _contains(rule: Rule, text: str) -> Reading:
    found = [t for t in rule.targets if _stands_in(normalised(t.strip(), rule.normalise), text, rule.normalise)]
    return (found[0].strip(), True, "contained") if found else (text.strip(), False, "not contained")


def _stands_in(target: str, text: str, options: Sequence[str]) -> bool:
    text = normalised(text, [option for option in options if option != "articles"])
    return re.search(rf"(?<!\w){re.escape(target)}(?!\w)", text) is not None


def _regex(rule: Rule, text: str) -> Reading:
    text = normalised(text, [option for option in rule.normalise if option != "case"])
    for pattern in rule.targets:
        found = re.search(pattern, text, re.IGNORECASE if "case" in rule.normalise else 0)
        if found:
            return found[0], True, "pattern found"
    return text.strip(), False, "no pattern found"


def _number(rule: Rule, text: str) -> Reading:
    number, reason = extract_number(text, "flexible", ())
    right = any(numbers_equal(number, gold_number(target)) for target in rule.targets)
    return None if number is None else f"{number:f}", right, reason


def _letter(rule: Rule, text: str) -> Reading:
    accepted = [target.strip() for target in rule.targets]
    letter, reason = extract_letter(text, letters_up_to(accepted), ())
    return letter, letter in accepted, reason


def _last_word(rule: Rule, text: str) -> Reading:
    words = [word for word in map(tidy_text, text.split()) if re.search(r"\w", word)]
    if not words:
        return None, False, "no word"
    answer = normalised(words[-1], rule.normalise)
    return answer, any(answer == normalised(t.strip(), rule.normalise) for t in rule.targets), "last word"


def _python(rule: Rule, text: str) -> Reading:
    where = f"score python:{rule.file}:{rule.function}"
    try:
        right = _function(rule.file, rule.function, rule.content)(text, list(rule.targets))
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{where} failed with {type(error).__name__}: {error} on the completion {text[:80]!r}. Mend the function."
        ) from error
    return text.strip(), bool(right), rule.function


@lru_cache(maxsize=64)
def _function(file: str, name: str, content: str) -> Callable[[str, list[str]], Any]:
    """The user's own function; ``content`` is there so that a changed file is read anew."""
    found: Any = runpy.run_path(file).get(name)
    if not callable(found):
        raise UserError(f"score python:{file}:{name}: there is no function {name} in that file. Name one of its.")
    return found


BY_NAME: dict[str, Callable[[Rule, str], Reading]] = {
    "exact": _exact,
    "contains": _contains,
    "regex": _regex,
    "number": _number,
    "letter": _letter,
    "last_word": _last_word,
    "python": _python,
}
