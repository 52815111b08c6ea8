"""The benchmarks of stage 4 on a tiny model: equal answers are found equal; what is absent is said to be."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from experiments.benchmarks import evaluation, scorers
from tests.conftest import byte_tokenizer, tiny_model


@pytest.mark.slow
def test_plain_evaluation_finds_the_same(data_dir: str, tmp_path: Path) -> None:
    model = tmp_path / "model"
    tiny_model(max_position_embeddings=16384).save_pretrained(model)  # a token is a byte here
    byte_tokenizer().save_pretrained(model)
    args = ["--quick", "--model", str(model), "--data_dir", data_dir, "--out", str(tmp_path)]
    assert evaluation.main(args) == 0
    choices = json.loads((tmp_path / "choices.json").read_text())
    assert choices["n"] == 4 and choices["largest_difference"] < 1e-4
    for protocol in ("paper", "standard"):
        assert json.loads((tmp_path / "generation.json").read_text())[protocol]["other_completion"] == []


def test_an_absent_package_is_said_and_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert scorers.ask(sys.executable, "", [], "no_such_package") is None
    assert "cannot import no_such_package" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "ours", "theirs", "why"),
    [
        ("#### 1/2", "0.5", "1", "fraction"),
        ("#### 3\n#### 4", "4", "3", "several markers: they take the first, we the last"),
        ("so 1 and nothing", "1", "[invalid]", "they find none"),
        ("5-1", "1", "-1", "sign or subtraction"),
    ],
)
def test_differences_have_a_class(text: str, ours: str, theirs: str, why: str) -> None:
    assert scorers.difference_class(text, ours, theirs) == why


def test_near_misses_change_one_thing() -> None:
    assert scorers.mutants("    return a < b and c") == [
        "    return a <= b and c",
        "    return a < b or c",
        "    return not a < b and c",
    ]
