"""The table of ``docs/sandbox.md``: each cell is what a program finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from spd_lightning.scoring import isolation
from spd_lightning.scoring.isolation import LANDLOCK, probe_isolation
from tests.attacks.doors import COLUMNS, DOORS, opened, opened_by_nobody

DOCS = Path(__file__).parents[2] / "docs" / "sandbox.md"
YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")


def table() -> dict[int | str, set[str]]:
    """The doors that are open by the table, of each tier."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in DOCS.read_text(encoding="utf-8").splitlines()]
    cells = {row[0]: row[1:] for row in rows if row and row[0] in DOORS}
    assert list(cells) == list(DOORS) and {cell for row in cells.values() for cell in row} == {"yes", "no"}
    return {tier: {door for door in DOORS if cells[door][i] == "yes"} for i, tier in enumerate(COLUMNS)}


def expected(tier: int | str) -> set[str]:
    where_debuggers_are_kept_out = YAMA.exists() and YAMA.read_text().strip() != "0"
    return table()[tier] - (
        {"read the memory of the user's other processes"} if where_debuggers_are_kept_out else set()
    )


def test_the_doors_of_the_tier_that_is_used_here() -> None:
    tier = probe_isolation().tier
    assert (opened_by_nobody(tier) if tier == 4 else opened(tier)) == expected(tier)


@pytest.mark.slow
@pytest.mark.parametrize("tier", COLUMNS)
def test_the_doors_of_every_tier(tier: int | str) -> None:
    if isolation._try_tier(tier).name == "none":
        pytest.skip(f"isolation tier {tier} does not work here ({isolation._try_tier(tier).detail}): mend that")
    if tier != 4:
        assert opened(tier) == expected(tier)
    if tier in (1, 2, LANDLOCK, 4):
        assert opened_by_nobody(tier) == expected(tier)
