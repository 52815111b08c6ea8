"""Character spans to S, with the accidents that lose a part of it."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from spd_lightning.errors import UserError
from spd_lightning.subspace.correctness import (
    CUT_OFF,
    NO_SPAN,
    NO_TOKEN,
    TOO_SHORT,
    encode_examples,
    in_span,
)
from spd_lightning.tasks.task import Example
from tests.text_tokenizers import ends_with_eos


def example(prompt="Question: 1+1\nAnswer:", target=" so 2\n#### 12", spans=((32, 34),), id="a"):
    return Example(id, prompt, target, spans)


@pytest.fixture(scope="module")
def gluing():
    """A tokenizer whose words carry the space before them, as GPT-2's and SmolLM's do."""
    vocab = {"Answer": 0, ":": 1, "ĠB": 2, "ĠA": 3, "<eos>": 4}
    core = Tokenizer(models.WordLevel(vocab, unk_token="<eos>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>")


def test_bytes_of_the_span_and_nothing_else(tokenizer):
    text = "Question: 1+1\nAnswer: so 2\n#### 12"
    assert text[32:34] == "12"
    encoded, statistics = encode_examples(tokenizer, [example()])
    assert [t for t, in_s in enumerate(encoded[0].correctness_mask) if in_s] == [32, 33]
    assert encoded[0].reach == 33
    assert (statistics.num_examples, statistics.num_tokens, statistics.num_correctness_tokens) == (1, 34, 2)


@pytest.mark.parametrize("loss", ["correctness", "full"])
def test_an_end_of_sequence_that_the_tokenizer_appends_is_no_part_of_the_text(tokenizer, loss):
    assert encode_examples(ends_with_eos(), [example()], loss=loss) == encode_examples(
        tokenizer, [example()], loss=loss
    )


@pytest.mark.parametrize(
    ("offset", "span", "overlap", "contained"),
    [
        ((3, 5), (3, 5), True, True),
        ((2, 5), (3, 5), True, False),
        ((4, 7), (3, 5), True, False),
        ((5, 6), (3, 5), False, False),
        ((2, 3), (3, 5), False, False),
        ((0, 9), (3, 5), True, False),
        ((0, 0), (0, 5), False, False),  # a special token has no characters
        ((3, 4), (4, 4), False, False),  # an empty span has none either
    ],
)
def test_rules(offset, span, overlap, contained):
    assert in_span(offset, span, "overlap") is overlap
    assert in_span(offset, span, "contained") is contained


def test_contained_drops_a_token_that_carries_a_space_and_says_so(gluing):
    asked = [Example("x", "Answer:", " B", ((8, 9),)), Example("y", "Answer:", " B", ((7, 9),))]
    encoded, statistics = encode_examples(gluing, asked, span_rule="overlap")
    assert [e.correctness_mask for e in encoded] == [(False, False, True)] * 2
    encoded, statistics = encode_examples(gluing, asked, span_rule="contained")
    assert [e.id for e in encoded] == ["y"]
    assert statistics.skipped == {NO_TOKEN: ["x"]} and statistics.num_skipped == 1


def test_span_cut_by_max_length_is_counted_and_empty_ones_skipped(tokenizer):
    asked = [example(id="half"), example(id="gone", prompt="x" * 30), example(id="short", target="!", spans=((0, 3),))]
    encoded, statistics = encode_examples(tokenizer, asked, max_length=33)
    assert len(encoded[0].input_ids) == 33 and sum(encoded[0].correctness_mask) == 1
    assert statistics.cut == ["half", "gone"]
    _, statistics = encode_examples(tokenizer, asked, max_length=20)
    assert statistics.skipped == {CUT_OFF: ["half", "gone"]}
    assert "skipped, max_length cut off every correctness span: 2 (half, gone)" in str(statistics)


def test_reasons_for_skipping_are_told_apart(tokenizer):
    asked = [example(id="no span", spans=()), example(id="first", prompt="", spans=((0, 1),)), example(id="ok")]
    _, statistics = encode_examples(tokenizer, asked)
    assert statistics.skipped == {NO_SPAN: ["no span"], NO_TOKEN: ["first"]}
    _, statistics = encode_examples(tokenizer, [Example("one", "", "x"), example()], loss="full")
    assert statistics.skipped == {TOO_SHORT: ["one"]}


def test_full_loss_takes_every_token_but_the_first(tokenizer):
    encoded, statistics = encode_examples(tokenizer, [example(spans=())], loss="full")
    assert encoded[0].correctness_mask == (False, *[True] * 33)
    assert statistics.cut == []


def test_empty_s_everywhere_names_numbers_and_options(tokenizer):
    with pytest.raises(UserError, match=r"S is empty in all 2 .*cut off every correctness span: 2.*max_length=10"):
        encode_examples(tokenizer, [example(), example(id="b")], max_length=10)
    with pytest.raises(UserError, match=r"all 0 .*no example given"):
        encode_examples(tokenizer, [])


def test_unknown_options(tokenizer):
    with pytest.raises(UserError, match="span_rule='inside'"):
        encode_examples(tokenizer, [example()], span_rule="inside")
    with pytest.raises(UserError, match="loss='all'"):
        encode_examples(tokenizer, [example()], loss="all")
    with pytest.raises(UserError, match="max_length=1 "):
        encode_examples(tokenizer, [example()], max_length=1)


def test_a_tokenizer_without_offsets_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(UserError, match="Slow gives no character offsets"):
        encode_examples(Slow(), [example()])
