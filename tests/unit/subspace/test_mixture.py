"""The moments of several tasks as one, against the stacked gradient rows themselves."""

from __future__ import annotations

import json
import warnings
from itertools import permutations

import pytest
import torch
from torch import Tensor

from spd_lightning.subspace.choice import Basis, subspace_from_moments
from spd_lightning.subspace.mixture import mixed
from spd_lightning.subspace.moments import Moments
from spd_lightning.subspace.stability import overlap_of_halves
from spd_lightning.subspace.subspace import CapabilitySubspace
from spd_lightning.tasks.mix import weights_of

SITE = (0, "k")
D, R = 12, 4


def rows_of(seed: int, count: int, size: float) -> Tensor:
    """Gradient rows of a task: ``count`` of them, of a scale and a direction of their own."""
    generator = torch.Generator().manual_seed(seed)
    shape = torch.randn(D, D, generator=generator, dtype=torch.float64)
    return size * torch.randn(count, D, generator=generator, dtype=torch.float64) @ shape + size


# As different as tasks are: 40 and 900 tokens, gradients 30 times as large.
ROWS = {"a": rows_of(0, 40, 30.0), "b": rows_of(1, 900, 1.0), "c": rows_of(2, 200, 0.1)}


def moments_of(rows: Tensor, name: str = "t") -> Moments:
    moments = Moments()
    moments.update({SITE: rows}, half=({SITE: rows[::2]}, {SITE: len(rows[::2])}))  # type: ignore[dict-item]
    counts = {"num_examples": 2, "num_skipped": 1, "num_cut": 0, "num_tokens": len(rows), "num_correctness_tokens": 3}
    moments.metadata = {"task": name, "model": "m", "skipped": {"why": 1}, **counts}
    return moments


FOUND = {name: moments_of(rows, name) for name, rows in ROWS.items()}


def subspace(weights: dict[str, float], center: bool = False, basis: Basis = "capability") -> CapabilitySubspace:
    return subspace_from_moments(mixed(FOUND, weights_of(weights)), R, center, basis)


def by_hand(weights: dict[str, float], center: bool) -> tuple[Tensor, Tensor]:
    """Right singular vectors and values of the stacked rows, each task's brought to energy ``weight``."""
    stacked = []
    for name, weight in weights_of(weights).items():
        rows = ROWS[name] - ROWS[name].mean(0) if center else ROWS[name]
        stacked.append(rows * (weight / rows.square().sum()) ** 0.5)
    _, values, vectors = torch.linalg.svd(torch.cat(stacked), full_matrices=False)
    return vectors[:R].T, values


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("weights", [{"a": 1, "b": 1}, {"a": 1, "b": 3}, {"a": 1, "b": 1, "c": 1}])
def test_it_is_the_subspace_of_the_stacked_rows_at_equal_energy(weights: dict[str, float], center: bool) -> None:
    found, (vectors, values) = subspace(weights, center), by_hand(weights, center)
    assert torch.allclose(found.spectra[SITE].double(), values, atol=1e-6)
    projector = found.bases[SITE].double() @ found.bases[SITE].double().T
    assert torch.allclose(projector, vectors @ vectors.T, atol=1e-5)


def test_equal_weights_are_the_mean_of_the_moments_divided_by_their_trace() -> None:
    both = mixed(FOUND, weights_of(["a", "b"])).sites[SITE]
    parts = [FOUND[name].sites[SITE].second_moment for name in "ab"]
    mean = sum((part / part.trace() for part in parts), torch.zeros(D, D, dtype=torch.float64)) / 2
    assert torch.allclose(both.second_moment, mean, rtol=1e-14) and torch.equal(both.gram(False), both.second_moment)
    assert both.count == 940


@pytest.mark.parametrize("weights", [{"a": 1, "b": 1}, {"a": 1, "b": 4}, {"a": 2, "b": 1, "c": 1}])
def test_a_weight_is_a_share_of_the_energy_whatever_the_number_and_size_of_gradients(weights: dict[str, float]) -> None:
    """What makes weights true: neither more tokens, nor repeated ones, nor larger gradients change a task's share."""
    whole = mixed(FOUND, weights_of(weights)).sites[SITE].gram(False)
    assert float(whole.trace()) == pytest.approx(1, rel=1e-12)
    more = {**FOUND, "a": moments_of(torch.cat([ROWS["a"]] * 5) * 1e-3)}
    assert torch.allclose(mixed(more, weights_of(weights)).sites[SITE].gram(False), whole, rtol=1e-10)
    plain = sum((FOUND[n].sites[SITE].second_moment for n in weights), torch.zeros(D, D, dtype=torch.float64))
    share = FOUND["a"].sites[SITE].second_moment.trace() / plain.trace()
    assert share > 0.95, "of a plain sum, the task with large gradients would be nearly all"


def test_the_order_of_tasks_changes_no_bit_and_one_task_is_itself() -> None:
    for names in permutations("abc"):
        again = mixed(FOUND, weights_of(list(names))).sites[SITE]
        assert torch.equal(again.second_moment, mixed(FOUND, weights_of(["a", "b", "c"])).sites[SITE].second_moment)
    assert mixed(FOUND, weights_of(["a"])) is FOUND["a"] is mixed(FOUND, weights_of({"a": 5}))


def test_a_task_that_outweighs_the_other_has_nearly_its_own_subspace() -> None:
    alone = subspace_from_moments(FOUND["a"], R).bases[SITE]
    near = subspace({"a": 1e9, "b": 1}).bases[SITE]
    assert torch.allclose(alone @ alone.T, near @ near.T, atol=1e-5)


@pytest.mark.parametrize("center", [False, True])
def test_halves_of_a_mix_are_mixes_of_the_halves(center: bool) -> None:
    whole = mixed(FOUND, weights_of(["a", "b"]))
    parts = {half: mixed({n: moments_of(ROWS[n][start::2]) for n in "ab"}, weights_of(["a", "b"]))
             for half, start in (("even", 0), ("odd", 1))}  # fmt: skip
    assert whole.half is not None
    rest = whole.without(whole.half)
    for found, half in ((whole.half, "even"), (rest, "odd")):
        assert torch.allclose(found.sites[SITE].gram(center), parts[half].sites[SITE].gram(center), rtol=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (row,) = overlap_of_halves(whole, R, center, "capability")
    assert 0.5 < row["overlap"] <= 1 and row["kv_dim"] == D


def test_the_metadata_add_up_and_name_every_task() -> None:
    facts = subspace({"b": 1, "a": 3}).metadata
    assert facts["task"] == "a + b" and facts["num_tokens"] == 940 and facts["skipped"] == {"why": 2}
    assert {name: (own["weight"], own["num_tokens"]) for name, own in facts["tasks"].items()} == {
        "a": (0.75, 40), "b": (0.25, 900)
    }  # fmt: skip
    assert "tasks" not in subspace_from_moments(FOUND["a"], R).metadata
    json.dumps(facts)
