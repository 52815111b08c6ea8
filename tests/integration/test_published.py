"""The published main table: its sweep, and our cells beside the published ones."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments import published
from experiments.published import COLUMNS, SWEEP, cell_of, published_table, rows_of
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.cli.parser import make_parser
from spd_lightning.sweep.grid import Point, points, read_sweep
from tests.unit.report.test_report import make_run

ROOT = Path(__file__).parents[2]


def test_the_sweep_is_every_method_on_every_domain_with_three_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = points(read_sweep(SWEEP))
    assert len(found) == 27 and len({p.name for p in found}) == 27
    counts = Counter((p.options["config"], p.options["data.method"]) for p in found)
    assert set(counts.values()) == {3} and len(counts) == 9
    assert {c.trained_on for c in COLUMNS} == {Path(config).stem for config, _ in counts}
    for point in found[:: len(found) // 6]:
        parsed: Any = make_parser().parse_args(point.command[point.command.index("fit") :])
        options = parsed.fit
        assert options.data.method == point.options["data.method"] and options.evaluation.protocol == "paper"
        assert options.seed_everything == options.data.seed == point.options["seed_everything"]
        assert options.subspace.model_name_or_path == "Qwen/Qwen2.5-0.5B-Instruct"
        assert {c.task for c in COLUMNS} <= set(options.evaluation.tasks)


# arXiv:2605.22675, main table, Qwen2.5-0.5B-Instruct, as it is printed: a line a method.
PRINTED = """
base 17.0 11.0 46.0 16.0 32.7 0.683
psr  29.0 17.0 43.0 19.0 33.7 0.683
ssd  18.3 12.0 48.0 16.0 36.0 0.682
spd  25.5 22.0 49.0 32.0 38.7 0.679
"""


def test_every_published_cell_is_the_printed_one() -> None:
    assert [c.name for c in COLUMNS] == ["MBPP", "GSM8K", "MMLU", "SVAMP", "BBH", "CodeAlpaca"]
    for method, *printed in map(str.split, PRINTED.strip().splitlines()):
        assert [c.published[method] for c in COLUMNS] == [float(cell) for cell in printed]


def test_the_claims_rest_on_published_cells_that_bear_them_out() -> None:
    """\"Up to 13 points\" stands beside cells that are 13 points apart, and those are the printed ones."""
    cells = {(c.name, method): value for c in COLUMNS for method, value in c.published.items()}
    elsewhere, shown = {"trained on MMLU": 26.0}, 0  # of another table: out of domain
    for claim in yaml.safe_load((ROOT / "experiments" / "claims.yaml").read_text(encoding="utf-8")):
        pairs = re.findall(r"(\w+) (\d+\.\d) \(SPD\) against (\d+\.\d) \((\w+)\)", claim["published"])
        spd = next((value for words, value in elsewhere.items() if words in claim["published"]), None)
        for name, ours, other, method in pairs:
            assert (float(ours), float(other)) == (spd or cells[name, "spd"], cells[name, method.lower()])
        if (most := re.search(r"up to (\d+) points", claim["claim"])) is not None:
            assert max((float(ours) - float(other) for _, ours, other, _ in pairs), default=0) == int(most[1])
            shown += 1
    assert shown == 3


def test_a_config_file_named_by_a_parameter_is_part_of_a_points_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("x: 1")
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text("parameters: {config: {values: [a.yaml]}}\ncommand: [python, '${args}']\n")
    (before,) = points(read_sweep(sweep))
    (tmp_path / "a.yaml").write_text("x: 2")
    (after,) = points(read_sweep(sweep))
    assert before.command == after.command and before.name != after.name


def made(trained_on: str, method: str, seed: int, **values: float) -> dict[str, Any]:
    scores = [
        {"task": "gsm8k", "method": m, "metric": f"exact_match_flexible{suffix}", "value": value + shift, "n": 100}
        | {"stderr": math.sqrt(value * (1 - value) / 100), "seed": seed}
        for m, value in values.items()
        for suffix, shift in (("", 0.5), ("_script", 0.0))
    ]
    return {"trained_on": trained_on, "method": method, "scores": scores}


def test_our_cells_stand_beside_the_published_ones() -> None:
    results = [made("gsm8k", "spd", seed, base=0.1, spd=value) for seed, value in ((42, 0.2), (43, 0.3), (44, 0.25))]
    results += [made("mmlu", "spd", 42, base=0.1, spd=0.9)]  # another domain's students are not of this column
    gsm8k = next(c for c in COLUMNS if c.name == "GSM8K")
    assert [row["value"] for row in rows_of(results, gsm8k, "spd")] == [0.2, 0.3, 0.25], "as the script reads"
    assert len(rows_of(results, gsm8k, "base")) == 1

    cell = cell_of(rows_of(results, gsm8k, "spd"))
    examples = (16 + 21 + 18.75) / 3  # mean of p (1 - p) / n, in points squared
    assert cell.value == pytest.approx(25) and (cell.n, cell.seeds) == (100, 3)
    assert cell.error**2 == pytest.approx(examples + 25 / 3)

    table = {(row[0], row[1]): row for row in published_table(results).rows}
    assert len(table) == 24 and table["MBPP", "ssd"][2:4] == ("18.3", "not run")
    error = math.sqrt(cell.error**2 + 22 * 78 / 100)
    assert table["GSM8K", "spd"][2] == "22.0" and table["GSM8K", "spd"][-2:] == ("100", "3")
    assert table["GSM8K", "spd"][3] == f"25.0 +- {1.96 * cell.error:.1f}"
    assert table["GSM8K", "spd"][4] == f"+3.0 [{3 - 1.96 * error:+.1f}, {3 + 1.96 * error:+.1f}]"
    assert table["GSM8K", "base"][4].startswith("-1.0 [")


def test_a_loss_is_in_nats_and_has_the_error_of_ours_alone() -> None:
    row = {"task": "codealpaca", "method": "ssd", "metric": "nll_per_token", "value": 0.7, "n": 100, "stderr": 0.01}
    results = [{"trained_on": "mbpp", "method": "ssd", "scores": [{**row, "seed": 42}]}]
    table = {(r[0], r[1]): r for r in published_table(results).rows}
    assert table["CodeAlpaca", "ssd"][2:5] == ("0.682", "0.700 +- 0.020", "+0.018 [-0.002, +0.038]")
    assert "only where rows come from the hub" in published_table(results).note


@pytest.mark.parametrize("changed", [False, True])
def test_a_run_that_was_changed_stands_in_no_table(
    changed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(make_run(tmp_path / "a"))
    run.manifest.write()
    if changed:
        run.results.write_text(run.results.read_text().replace("0.33", "0.83", 1))
    monkeypatch.setattr(published, "run_sweep", lambda *args: None)
    monkeypatch.setattr(published, "points", lambda sweep: [Point({}, [], "a")])
    assert published.main(["--out", str(tmp_path)]) == (2 if changed else 0)
    assert (tmp_path / "main_table.md").is_file() != changed
    assert ("a is not as it was written (results.json was changed)" in capsys.readouterr().err) == changed
