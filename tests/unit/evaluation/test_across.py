"""Arms over the students of several runs: which examples count, which statistics they get, and in which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from spd_lightning.evaluation.across import ONE_STUDENT, Answers, compare_arms, correct_family
from spd_lightning.evaluation.blocks import fresh_rows, same_rows
from spd_lightning.evaluation.paired import share_difference


def fresh(seeds: list[int], share: float, n: int = 400, draw: int = 0) -> dict[int, Answers]:
    generator = np.random.default_rng([draw, int(1000 * share)])
    return {s: Answers([f"s{s}/{i}" for i in range(n)], (generator.random(n) < share) * 1.0) for s in seeds}  # type: ignore[arg-type]


def same(seeds: list[int], share: float, n: int = 300, first: int = 0) -> dict[int, Answers]:
    generator = np.random.default_rng([7, int(1000 * share)])
    return {s: Answers([f"test/{first + i}" for i in range(n)], (generator.random(n) < share) * 1.0) for s in seeds}  # type: ignore[arg-type]


def test_fresh_rows_are_paired_by_seed_and_only_shared_seeds_count() -> None:
    a, b = fresh([1, 2, 3, 4], 0.4), fresh([2, 3, 4, 9], 0.6)
    row = compare_arms(a, b)
    assert row is not None and (row["rows"], row["seeds"], row["n"]) == ("fresh", [2, 3, 4], 400)
    expected = fresh_rows([float(np.mean(b[s].values) - np.mean(a[s].values)) for s in (2, 3, 4)])
    assert (row["delta"], tuple(row["ci95"]), row["p_value"]) == (expected.delta, expected.interval, expected.p_value)
    assert row["unshared"] == 800, "seed 1 of a, seed 9 of b"
    assert row["smallest_effect"] > 2 * row["stderr"] and 0 <= row["equivalence_power"] <= 1


def test_the_same_rows_under_every_seed_take_all_students_of_either_arm() -> None:
    a, b = same([1, 2, 3], 0.4), same([1, 2, 3, 4], 0.5)
    row = compare_arms(a, b)
    expected = same_rows([x.values for x in a.values()], [x.values for x in b.values()])
    assert row is not None and (row["rows"], row["blocks"], row["df"]) == ("same", 3, expected.df)
    assert row["delta"] == pytest.approx(expected.delta) and row["stderr"] == pytest.approx(expected.stderr)


def test_only_shared_examples_count_and_the_others_are_said() -> None:
    a, b = same([1, 2, 3], 0.4), same([1, 2, 3], 0.5, first=100)
    row = compare_arms(a, b)
    assert row is not None and (row["n"], row["unshared"]) == (200, 600)
    assert compare_arms(a, same([1, 2, 3], 0.5, first=900)) is None
    assert compare_arms(a, {}) is None


def test_order_of_the_examples_does_not_matter() -> None:
    a, b = fresh([1, 2, 3], 0.4), fresh([1, 2, 3], 0.6)
    turned = {s: Answers(x.ids[::-1], x.values[::-1]) for s, x in b.items()}
    assert compare_arms(a, b) == compare_arms(a, turned)


@pytest.mark.parametrize("seeds", [([5], [5]), ([5], [6])], ids=["one block", "two seeds, one set of rows"])
def test_one_student_each_is_about_these_two_students(seeds: tuple[list[int], list[int]]) -> None:
    a, b = same(seeds[0], 0.2), same(seeds[1], 0.6)
    row = compare_arms(a, b)
    assert row is not None and row["blocks"] == 1 and row["ci95"] is None and row["p_value"] is None
    x, y = np.array(a[seeds[0][0]].values), np.array(b[seeds[1][0]].values)
    expected = share_difference(int((x > y).sum()), int((y > x).sum()), 300)
    assert row["students"]["p_value"] == expected.p_value < 0.001
    assert tuple(row["students"]["ci95"]) == expected.interval
    correct_family([row])
    assert row["word"] == ONE_STUDENT and row["p_holm"] is None


def test_one_student_beside_three_is_compared_with_one_of_them() -> None:
    """A difference from the mean of three would not lie in the interval of one."""
    a, b = same([1], 0.3), {1: same([1], 0.35)[1], 2: same([1], 0.8)[1], 3: same([1], 0.9)[1]}
    row = compare_arms(a, b)
    assert row is not None and row["blocks"] == 1 and row["seeds"] == [1]
    assert row["delta"] == pytest.approx(np.mean(b[1].values) - np.mean(a[1].values))
    assert row["delta"] == pytest.approx(row["students"]["delta"])
    assert row["unshared"] == 600, "the answers of the two others"
    assert (compare_arms(b, a) or {})["delta"] == -row["delta"]
    apart = compare_arms({9: a[1]}, b)
    assert apart is not None and apart["seeds"] == [1, 9] and apart["delta"] == row["delta"]


def test_two_blocks_have_no_interval_and_are_undecided() -> None:
    row = compare_arms(fresh([1, 2], 0.2), fresh([1, 2], 0.8))
    assert row is not None and row["ci95"] is None and row["students"] is None
    correct_family([row])
    assert row["word"] == "undecided"


def test_holm_goes_over_the_family_and_stars_follow_it() -> None:
    rows = [compare_arms(fresh([1, 2, 3], 0.2, 4000, i), fresh([1, 2, 3], 0.8, 4000, i)) for i in range(3)]
    rows.append(compare_arms(fresh([1, 2], 0.2), fresh([1, 2], 0.8)))
    family = [row for row in rows if row is not None]
    correct_family(family)
    assert [row["word"] for row in family] == ["higher", "higher", "higher", "undecided"]
    least = min(row["p_value"] for row in family if row["p_value"] is not None)
    assert min(row["p_holm"] for row in family if row["p_holm"] is not None) == pytest.approx(4 * least)


def test_weighted_means_are_those_of_their_weights() -> None:
    ids = ["a", "b"]
    a = {s: Answers(ids, [1.0, 2.0], [1.0, 3.0]) for s in (1, 2, 3)}
    b = {s: Answers(ids, [1.0 + s, 2.0], [1.0, 3.0]) for s in (1, 2, 3)}
    row = compare_arms(a, b, share=False)
    assert row is not None and row["delta"] == pytest.approx(2 / 4) and row["equivalence_power"] is None


def losses(seeds: list[int], gain: float, noise: float = 0.05, n: int = 40) -> tuple[dict[int, Answers], NDArray[Any]]:
    """Losses per token of texts of very different lengths, the same texts under every seed; and their tokens."""
    tokens = np.random.default_rng(5).integers(4, 200, n).astype(float)
    text = np.random.default_rng(6).normal(1.5, 0.4, n)
    found = {}
    for seed in seeds:
        own = np.random.default_rng([seed, round(1000 * abs(gain))])
        values = text + gain + own.normal(0, 0.02) + own.normal(0, noise, n)
        found[seed] = Answers([f"test/{i}" for i in range(n)], values, tokens)  # type: ignore[arg-type]
    return found, tokens


def test_a_loss_of_two_students_has_the_interval_that_their_run_gives_it() -> None:
    """Each text left out once, by hand: the tables of a run and of several runs say the same."""
    (a, tokens), (b, _) = losses([1], 0.0), losses([1], -0.3)
    difference = np.array(b[1].values) - np.array(a[1].values)
    n, delta = len(tokens), np.average(difference, weights=tokens)
    others = [np.average(np.delete(difference, i), weights=np.delete(tokens, i)) for i in range(n)]
    half = stats.t.ppf(0.975, n - 1) * np.sqrt((n - 1) / n * ((np.array(others) - delta) ** 2).sum())
    row = compare_arms(a, b, share=False)
    assert row is not None and row["delta"] == pytest.approx(delta)
    assert row["students"]["ci95"] == pytest.approx([delta - half, delta + half], rel=1e-9)


def test_a_loss_that_falls_alike_on_every_text_varies_by_its_seeds_alone() -> None:
    """However long the texts are: the interval is Welch's of the seeds' means, as no example differs from another."""
    a, b = (losses([1, 2, 3, 4], gain, noise=0.0)[0] for gain in (0.0, -0.5))
    row = compare_arms(a, b, share=False)
    means = [[np.average(x.values, weights=x.weights) for x in arm.values()] for arm in (a, b)]
    error = np.sqrt(sum(np.var(m, ddof=1) / 4 for m in means))
    assert row is not None and row["delta"] == pytest.approx(np.mean(means[1]) - np.mean(means[0]))
    assert row["stderr"] == pytest.approx(error, rel=1e-9)
