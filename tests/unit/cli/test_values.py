"""A typed value is what was typed, also where YAML takes it for something else."""

from __future__ import annotations

import pytest

from spd_lightning.cli.parser import make_parser

ODD = ("#x", "&x", "*x", "!x", "%x", "@x", "`x", "[x", "'x", "- x", "> x", "|", "x #y", "a b", "größe", "1e3", "on", "")


@pytest.mark.parametrize("option", ["run_dir", "data.subspace", "subspace.model_name_or_path"])
def test_text_stays_text(option: str) -> None:
    """``#x`` was read as a comment and ``&x`` as an anchor, so as nothing: the run went to another folder."""
    parser = make_parser()
    assert [parser.parse_args(["fit", f"--{option}={text}"]).fit[option] for text in ODD] == list(ODD)


@pytest.mark.parametrize("text", ["null", "~", "NULL"])
def test_nothing_is_still_nothing(text: str) -> None:
    assert make_parser().parse_args(["fit", f"--run_dir={text}"]).fit.run_dir is None


def test_other_values_are_read_as_before() -> None:
    typed = ["--subspace.layers=[0, -1]  # both", "--evaluation.limit={gsm8k: 3}", "--data.top_p=0.5"]
    options = make_parser().parse_args(["fit", *typed]).fit
    assert (options.subspace.layers, options.evaluation.limit, options.data.top_p) == ([0, -1], {"gsm8k": 3}, 0.5)
