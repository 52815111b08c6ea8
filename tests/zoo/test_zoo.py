"""Every family through every column, as `results.json` has it; the table of the page is that of the results."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.zoo.columns import COLUMNS, put_through
from tests.zoo.command_line import commands
from tests.zoo.families import FAMILIES
from tests.zoo.specimen import Specimen
from tests.zoo.table import PAGE, page_with, passed, read_results, render

RESULTS = read_results()
# One of each kind of cache and layout.
ONE_OF_EACH = (
    *("gemma3", "gpt2", "falcon_new", "gpt_bigcode", "dbrx", "jetmoe", "gpt_oss"),  # windows, fused, experts, sinks
    *("gemma4_shared", "gemma4_keqv", "zamba2"),  # borrowed, joint, and shared weights
    *("qwen3_5", "lfm2", "nemotron_h", "jamba", "falcon_h1"),  # linear attention, convolution, Mamba
)


def check(family: str, folder: Path) -> None:
    assert put_through(family, folder) == RESULTS[family], f"if this is right: python -m tests.zoo.table {family}"


@pytest.mark.parametrize("family", ONE_OF_EACH)
def test_one_of_each_kind(family: str, tmp_path: Path) -> None:
    check(family, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in ONE_OF_EACH])
def test_every_other_family(family: str, tmp_path: Path) -> None:
    check(family, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", ONE_OF_EACH)
def test_the_commands(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    commands(Specimen(family, tmp_path))


def test_the_results_are_of_every_family_and_pass_as_told() -> None:
    """At least 66 pass; those that do not are refused in a line, not broken."""
    assert list(RESULTS) == list(FAMILIES)
    assert sum(map(passed, RESULTS.values())) >= 66
    assert all("refused" in row for row in RESULTS.values() if not passed(row))


def test_the_page_has_the_table_of_the_results() -> None:
    assert PAGE.read_text(encoding="utf-8") == page_with(render(RESULTS)), "run: python -m tests.zoo.table --write"


def test_a_column_sees_a_leak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop can fail: padding that convolutions are not told of is found in generation and by another batch size."""
    from transformers.models.lfm2 import modeling_lfm2

    monkeypatch.setattr(modeling_lfm2, "apply_mask_to_padding_states", lambda states, mask: states)
    wanted = ("extraction", "generation", "batches")
    found = put_through("lfm2", tmp_path, {name: COLUMNS[name] for name in wanted})
    assert "are off by" in found["generation"] and "another corpus" in found["batches"]
