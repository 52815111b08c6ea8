"""A user's own rules, applied to answers as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from spd_lightning.errors import UserError
from spd_lightning.scoring.judging import judge_all
from spd_lightning.scoring.rules import apply_rule, normalised
from spd_lightning.tasks import Example, load_task
from spd_lightning.tasks.rules import Rule


@pytest.mark.parametrize(
    ("rule", "completion", "answer", "right"),
    [
        (Rule("exact", (" Paris",)), " Paris.\nIt is a city.", "paris", True),
        (Rule("exact", ("Paris", "Lutetia")), "**Lutetia**", "lutetia", True),
        (Rule("exact", ("Paris",)), "The capital is Paris.", "the capital is paris", False),
        (Rule("exact", ("Paris",), ()), "paris", "paris", False),
        (Rule("exact", ("a\nb",)), "A\nB\nC", "a b", True),
        (Rule("contains", ("Paris",)), "The capital of France is Paris.", "Paris", True),
        (Rule("contains", ("Rome",)), "A Romeo is no capital", "A Romeo is no capital", False),
        (Rule("contains", ("New  Delhi", "Delhi")), "It is NEW DELHI, I think", "New  Delhi", True),
        (Rule("contains", ("São Paulo",), ("case", "accents")), "In Sao paulo", "São Paulo", True),
        (Rule("contains", ("São Paulo",)), "In Sao Paulo", "In Sao Paulo", False),
        (Rule("contains", ("The Hague",), ("case", "articles")), "it is the hague", "The Hague", True),
        (Rule("regex", (r"\bcolou?r\b",), ()), "My color is red", "color", True),
        (Rule("regex", (r"^COLOR",), ("case",)), "color", "color", True),
        (Rule("regex", (r"^COLOR",), ()), "color", "color", False),
        (Rule("number", ("18", "0.5")), "She has 1/2 of it left.", "0.5", True),
        (Rule("number", ("18",)), "none of them", None, False),
        (Rule("letter", ("B", "C")), "The answer is (C).", "C", True),
        (Rule("letter", ("F",)), "F", "F", True),
        (Rule("last_word", ("Paris",)), "I believe it is **Paris**.", "paris", True),
        (Rule("last_word", ("Paris",)), "Paris it is!", "is", False),
        (Rule("last_word", ("Paris",)), "...", None, False),
        (Rule("exact", ("x",)), "  ", None, False),
        (Rule("contains", ("x",)), "<think>x</think>", None, False),
    ],
)
def test_answers(rule: Rule, completion: str, answer: str | None, right: bool) -> None:
    assert apply_rule(rule, completion)[:2] == (answer, right)


def test_each_option_of_normalising_does_one_thing() -> None:
    text = "The  Café."
    assert normalised(text, ()) == text
    assert normalised(text, ["case"]) == "the  café."
    assert normalised(text, ["space"]) == "The Café."
    assert normalised(text, ["punctuation"]) == "The  Café"
    assert normalised(text, ["accents"]) == "The  Cafe."
    assert normalised(text, ["articles"]) == "Café."


def test_six_of_eight_right_answers_in_sentences_are_right(tmp_path: Path) -> None:
    """As a person reads them: the rule that fits is named once, for the file."""
    capitals = {"France": "Paris", "Peru": "Lima", "Japan": "Tokyo", "Italy": "Rome"}
    file = tmp_path / "mine.jsonl"
    rows = [
        f'{{"prompt": "What is the capital of {c}?", "target": "{t}", "split": "test"}}' for c, t in capitals.items()
    ]
    file.write_text("\n".join(rows * 2))
    task = load_task("custom", task_file={"path": str(file), "score": "contains"})
    examples = task.benchmark().examples
    answers = [f"The capital of {c} is {t}." for c, t in capitals.items()] + ["Paris", "Lima is it", "Oslo", "I see"]
    verdicts = judge_all(task.answer_type, examples, answers)
    assert [v.correct for v in verdicts] == [True] * 6 + [False] * 2
    assert verdicts[0].answer == "Paris"


def test_a_rule_reads_all_that_the_user_s_stop_strings_leave() -> None:
    """Somebody's answers may hold what other tasks take for a next question."""
    rule = Rule("contains", ("Why?",))
    example = Example("e0", "Write two questions.", " Q: Why?", expected="Why?", meta={"rule": rule})
    (verdict,) = judge_all("rule", [example], ["How?\nQ: Why?"])
    assert verdict.correct


def test_a_function_of_the_user(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def same_length(completion, targets): return len(completion.strip()) == len(targets[0])\nx = 3\n")
    rule = Rule("python", ("abcd",), file=str(file), function="same_length", content="1")
    assert apply_rule(rule, " wxyz ") == ("wxyz", True, "same_length")
    assert not apply_rule(rule, "no")[1]
    with pytest.raises(UserError, match="there is no function x in that file"):
        apply_rule(Rule("python", ("a",), file=str(file), function="x", content="1"), "no")
    file.write_text("def same_length(completion, targets): return 1 / 0\n")
    with pytest.raises(UserError, match=r"failed with ZeroDivisionError: division by zero on the completion 'no'"):
        apply_rule(Rule("python", ("a",), file=str(file), function="same_length", content="2"), "no")
