"""Whether the student moved, as a report says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spd_lightning.report.figures import moved as moved_chart
from spd_lightning.report.moved import moved_rows, moved_sections
from spd_lightning.report.runs import Run

FIGURES = {"correct": 0.4, "parsed": 0.8, "correct_if_parsed": 0.5, "tokens": 12.0, "stopped": 1.0}
BASE: dict[str, Any] = {**FIGURES, "distinct_1": 0.25, "distinct_2": 0.5}
STUDENT = {**BASE, "correct": 0.5, "parsed": 1.0, "tokens": 10.5}
ANSWERS = {
    "task": "sums",
    "n": 50,
    "right_to_wrong": 3,
    "wrong_to_right": 8,
    "other_text": 20,
    "delta": 0.1,
    "from_parsing": 0.1,
    "from_accuracy": 0.0,
    "base": BASE,
    "student": STUDENT,
}
TEXTS = {
    "of": "answers of the student to sums",
    "texts": 32,
    "tokens": 1234,
    "kl": 0.0123,
    "kl_ci95": [0.01, 0.015],
    "base_loss": 0.5,
    "student_loss": 0.4,
    "loss_delta": -0.1,
    "loss_ci95": None,
    "same_token": 0.95,
}
SITE = {"layer": 15, "side": "k", "rank": 96, "kv_dim": 192, "overlap": 0.83, "chance": 0.5}


def test_every_figure_stands_with_what_it_is_of_and_n() -> None:
    moved = {"held_out": TEXTS, "corpus": None, "answers": [ANSWERS], "subspace": [SITE]}
    rows = {row[0]: row for row in moved_rows(moved)}
    assert rows["KL(student || base)"][1:3] == ("answers of the student to sums", "32 texts, 1,234 tokens")
    assert rows["KL(student || base)"][5] == "0.0123 [0.0100, 0.0150]"
    assert rows["loss"][3:] == ("0.500", "0.400", "-0.100")
    assert rows["greedy answers changed"][5] == "8 wrong to right, 3 right to wrong, 20 other texts"
    assert rows["right (%)"][3:] == (
        "40.0", "50.0", "+10.0 = +10.0 by what can be read +0.0 by what is right of it"
    )  # fmt: skip
    assert rows["mean length (tokens)"][3:] == ("12.0", "10.5", "-1.5")
    assert rows["overlap of two halves"][5] == "0.830, by chance 0.500"


def test_a_small_divergence_is_not_written_as_that_of_a_student_that_stayed() -> None:
    """A KL of exactly 0 says that nothing was trained; one of 2e-6 stood there as 0.0000."""
    for kl, ends, shown in ((1.79e-6, [0.0, 1.9e-6], "1.8e-06 [0.0000, 1.9e-06]"), (0.0, None, "0.0000")):
        texts = {**TEXTS, "kl": kl, "kl_ci95": ends}
        run = Run(Path("run"), {}, {}, {"moved": {"held_out": texts, "answers": []}}, {}, ())
        (section,) = moved_sections(run)
        assert moved_rows(run.results["moved"])[0][5] == shown
        assert section.headline.startswith(f"KL(student || base) {shown.split(' ')[0]} nats")


def test_what_is_of_the_first_round_is_told_where_there_are_later_ones(tmp_path: Path) -> None:
    run = Run(tmp_path, {}, {}, {"moved": {"held_out": TEXTS, "corpus": TEXTS, "answers": []}}, {}, ())
    words = "the completions that it was trained on, and the overlap, are those of the first."
    assert [words in str(section.blocks[0]) for section in moved_sections(run)] == [False]
    (tmp_path / "round-2").mkdir()
    assert [words in str(section.blocks[0]) for section in moved_sections(run)] == [True]


def test_what_was_not_measured_is_not_shown() -> None:
    letters = {**ANSWERS, "base": {**BASE, "tokens": None}, "student": {**STUDENT, "tokens": None}, "other_text": None}
    words = [row[0] for row in moved_rows({"held_out": None, "answers": [letters]})]
    assert "mean length (tokens)" not in words and "KL(student || base)" not in words
    drawn = {**ANSWERS, "right_to_wrong": None, "wrong_to_right": None}
    assert moved_chart([drawn]) is None and moved_chart([]) is None
    chart = moved_chart([ANSWERS, drawn])
    assert chart is not None and [row.label for row in chart.rows] == ["sums, n=50"]
    assert chart.rows[0].parts == ((0, 16.0), (1, -6.0)) and chart.rows[0].marks == ((0, 10.0), (1, 0.0))
