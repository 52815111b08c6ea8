"""What two sets of examples have in common, counted on sets made by hand."""

from __future__ import annotations

from spd_lightning.tasks.overlap import count_overlap, normalised_text
from spd_lightning.tasks.task import Example


def test_normalised_text() -> None:
    assert normalised_text("What  is\n2+2?") == normalised_text("what is 2 + 2 ?") == "what is 2 2"
    assert normalised_text("ﬁne_Word") == "fine word"
    assert normalised_text(" ?? !") == "?? !"  # a text of signs alone is not equal to another


def test_count_overlap() -> None:
    a = [Example("1", "Q: x?", "t", meta={"question": "x?"}), Example("2", "y", "t")]
    b = [Example("3", "other words X", "t", meta={"question": "X"})]
    assert (count_overlap(a, b), count_overlap(b, a), count_overlap(a, a), count_overlap(a, [])) == (1, 1, 2, 0)
