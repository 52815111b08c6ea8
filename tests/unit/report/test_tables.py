"""Tables and plots that other commands take from the report: overlap of subspaces, scores of a model card."""

import json
from pathlib import Path

import matplotlib.image
import pytest

from spd_lightning.report.plots import plot_sites, write_plot
from spd_lightning.report.render import markdown_table
from spd_lightning.report.tables import model_card_table, overlap_table
from spd_lightning.subspace.choice import subspace_from_moments
from spd_lightning.subspace.compare import compare_subspaces
from tests.unit.subspace.moments_by_hand import random_moments


def test_overlap_of_subspaces_as_a_table_and_a_heat_map(tmp_path: Path) -> None:
    moments = random_moments()
    subspaces = {"gsm8k": subspace_from_moments(moments), "mbpp": subspace_from_moments(moments, rank=4)}
    rows = compare_subspaces(subspaces)
    assert [(r.layer, r.side) for r in rows] == [(1, "k"), (1, "v")]
    assert rows[0].mean_squared_cosine == pytest.approx(1.0) and rows[0].grassmann_distance < 1e-6
    assert "| gsm8k | mbpp | 1 | k | 8/4 of 16 | 1.0000 | 0.5000 | 1.0000 |" in markdown_table(
        overlap_table(rows), plain=True
    )
    assert json.dumps(rows[0].as_dict())
    assert write_plot(plot_sites(rows), tmp_path / "plots" / "compare.png").stat().st_size > 5000
    sites = [(layer, side) for layer in range(5) for side in "kv"]
    many = {str(i): subspace_from_moments(random_moments(seed=i, sites=sites)) for i in range(2)}
    image = matplotlib.image.imread(write_plot(plot_sites(compare_subspaces(many)), tmp_path / "many.png"))
    assert image.shape[1] < 2000, "ten sites stand in rows of four"


def test_scores_of_a_model_card() -> None:
    row = {"method": "spd", "task": "gsm8k", "split": "in", "protocol": "standard", "metric": "exact_match_strict"}
    scores = [
        {**row, "value": 0.25, "n": 8, "ci95": [0.07, 0.59]},
        {**row, "split": None, "value": 1, "n": 9, "ci95": None},
    ]
    lines = markdown_table(model_card_table(scores), plain=True).splitlines()
    assert lines == [
        "| model | task | split | protocol | metric | value | n | 95% interval |",
        "| --- | --- | --- | --- | --- | ---: | ---: | --- |",
        "| spd | gsm8k | in | standard | exact_match_strict | 0.25 | 8 | 0.07 to 0.59 |",
        "| spd | gsm8k | - | standard | exact_match_strict | 1 | 9 | - |",
    ]
    assert r"exact\_match\_strict" in markdown_table(model_card_table(scores))
