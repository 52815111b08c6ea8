"""The page: every text escaped, sections with their anchors, differences of two texts marked."""

from __future__ import annotations

from spd_lightning.report.html import anchor, briefly, marked, render_html
from spd_lightning.report.render import Bullets, Code, Heading, Pair, Table

HOSTILE = "</pre><script>alert(1)</script>{{ 7 * 7 }} \x1b[31m \ud800 &amp;"


def test_whatever_a_model_wrote_is_text() -> None:
    table = Table((HOSTILE, "b"), [(HOSTILE, HOSTILE)], note=HOSTILE, caption=HOSTILE)
    pair = Pair(HOSTILE, ("a", "b"), (HOSTILE, f"{HOSTILE} more"))
    code, folded = Code(HOSTILE, HOSTILE), Code(HOSTILE, HOSTILE, folded=True)
    page = render_html(HOSTILE, [Heading(HOSTILE), HOSTILE, table, pair, code, folded, Bullets([HOSTILE])])
    assert page.count("<script>") == 1 and "alert(1)" in page and "49" not in page.replace("0.49", "")
    assert "\x1b" not in page and "\\x1b[31m" in page and "&amp;amp;" in page


def test_words_that_differ_are_marked() -> None:
    old, new = marked(["6 + 7 = 12", "6 + 7 = 13 <b>"])
    assert old == "6 + 7 = <del>12</del>" and new == "6 + 7 = <ins>13 &lt;b&gt;</ins>"
    assert marked(["same", "same"]) == ("same", "same")
    long = "x y " * 6000
    assert marked([long, "x"]) == (long, "x"), "too long to compare"


def test_an_anchor_is_a_word_and_a_notice_has_a_short_form() -> None:
    assert anchor("Did the student move?") == "did-the-student-move"
    assert briefly("a: bbh was not run: The data set is not there. Get it.") == "a: bbh was not run"
    assert briefly("91% are cut at 3.5 tokens. Raise it.") == "91% are cut at 3.5 tokens"
    assert briefly("all of it") == "all of it"


def test_tables_have_captions_and_scopes() -> None:
    page = render_html("t", [Table(("name", "n"), [("a", "1")], caption="Counts")])
    assert "<caption>Counts</caption>" in page and '<th scope="col" class="number">n</th>' in page
    assert '<th scope="row">a</th>' in page and '<td class="number" data-of="n">1</td>' in page
    unnamed = render_html("t", [Table(("", "value"), [("a", "1")])])
    assert '<caption class="unseen">value</caption>' in unnamed and '<th scope="col">name</th>' in unnamed
