"""What two sets of examples have in common, counted on sets made by hand."""

from __future__ import annotations

from spd_lightning.tasks.overlap import count_overlap, count_shared_ngrams, ngrams, normalised_text
from spd_lightning.tasks.task import Example


def test_normalised_text() -> None:
    assert normalised_text("What  is\n2+2?") == normalised_text("what is 2 + 2 ?") == "what is 2 2"
    assert normalised_text("ﬁne_Word") == "fine word"
    assert normalised_text(" ?? !") == "?? !"  # a text of signs alone is not equal to another


def test_count_overlap() -> None:
    a = [Example("1", "Q: x?", "t", meta={"question": "x?"}), Example("2", "y", "t")]
    b = [Example("3", "other words X", "t", meta={"question": "X"})]
    assert (count_overlap(a, b), count_overlap(b, a), count_overlap(a, a), count_overlap(a, [])) == (1, 1, 2, 0)


def test_ngrams_are_runs_of_words() -> None:
    assert ngrams("A b, c!", 2) == {("a", "b"), ("b", "c")} and ngrams("a b", 3) == set()


def test_examples_share_runs_of_13_words_with_training_texts() -> None:
    words = "w0 w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12 w13"
    twelve, thirteen = " ".join(words.split()[:12]), " ".join(words.split()[:13])
    rows = [
        Example("inside", "p", " t", meta={"question": f"Before. {thirteen.upper()}"}),
        Example("apart", "p", " t", meta={"question": f"{twelve} other words"}),
        Example("short", "p", " t", meta={"question": twelve[3:]}),
        Example("by its answer", "p", " w12", meta={"question": twelve}),
    ]
    assert count_shared_ngrams(rows, ["x", f"y {words} z"]) == (2, 3)
    assert count_shared_ngrams(rows, []) == (0, 3)
