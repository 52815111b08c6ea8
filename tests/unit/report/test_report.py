"""Report: reading run folders, combining seeds, tables, plots and the page, from run folders made up here."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from spd_lightning.artifacts.expressions import digest
from spd_lightning.errors import UserError
from spd_lightning.evaluation.paired import share_difference
from spd_lightning.evaluation.power import examples_needed
from spd_lightning.evaluation.statistics import wilson_interval
from spd_lightning.report import (
    figures,
    plots,
    read_run,
    render,
    render_table,
    sweeps,
    tables,
    wording,
    write_report,
    write_results,
)
from spd_lightning.report.html import render_html
from spd_lightning.report.passes import pass_blocks
from spd_lightning.report.sections import caveats
from spd_lightning.report.several import MOST_SUBSPACES
from spd_lightning.report.single import one_run
from spd_lightning.report.sweeps import combine_seeds, group_by_configuration, label, varying_options
from spd_lightning.sweep.runner import summary

HOSTILE = 'x</pre><script>alert("1")</script> ``` & $x$ \x1b[31m \ud800 | <img src=http://e.test/a.png>'


def score(method: str, task: str, split: str | None, metric: str, value: float, n: int = 100) -> dict[str, Any]:
    return {
        "method": method,
        "task": task,
        "split": split,
        "protocol": "standard",
        "metric": metric,
        "value": value,
        "n": n,
        "stderr": 0.04,
        "ci95": [value - 0.08, value + 0.08],
        "seed": 42,
        "isolation": None,
        "seconds": 1.5,
    }


def comparison(
    task: str, metric: str, delta: float, p_holm: float | None, n: int = 100, lost: int = 10
) -> dict[str, Any]:
    return {
        "a": "base",
        "b": "spd",
        "task": task,
        "protocol": "standard",
        "metric": metric,
        "delta": delta,
        "ci95": [delta - 0.1, delta + 0.1],
        "p_value": None if p_holm is None else p_holm / 2,
        "p_holm": p_holm,
        "only_a": lost,
        "only_b": lost + round(n * delta),
        "test": "mcnemar_exact",
        "n": n,
    }


def share(right: int, n: int) -> dict[str, Any]:
    """A group's entry in the facts of a benchmark."""
    return {"value": right / n, "n": n, "ci95": list(wilson_interval(right, n))}


def make_run(
    path: Path,
    seed: int = 42,
    rank: int = 4,
    layers: Any = "middle_last",
    gain: float = 0.3,
    at: Sequence[int] = (0, 1),
    energy: dict[str, float] | None = None,
) -> Path:
    """A complete run folder with invented numbers: SPD on arithmetic, two sites, six completions."""
    path.mkdir(parents=True)
    config = {
        "seed_everything": seed,
        "run_dir": str(path),
        "subspace": {"model_name_or_path": "tiny", "task": "arithmetic", "rank": rank, "layers": layers, "seed": seed},
        "data": {"method": "spd", "temperature": 0.7, "model_name_or_path": "tiny"},
        "trainer": {"max_epochs": 1, "default_root_dir": str(path)},
    }
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    (path / "environment.json").write_text(json.dumps({"torch": "2.13.0", "cpu": {"cores": 2}}))
    write_results(
        path,
        f"{seed:08x}{rank:08x}",
        "arithmetic",
        "spd",
        [
            score("base", "arithmetic", "in", "exact_match_flexible", 0.2),
            score("spd", "arithmetic", "in", "exact_match_flexible", 0.2 + gain),
            score("base", "letters", "out", "acc", 0.3),
            score("spd", "letters", "out", "acc", 0.33),
            score("base", "codealpaca", "out", "nll_per_token", 0.6832),
            score("spd", "codealpaca", "out", "nll_per_token", 0.6791),
        ],
        [comparison("arithmetic", "exact_match_flexible", gain, 0.0004), comparison("letters", "acc", 0.03, 0.6)],
        [
            {"stage": "extract", "seconds": 4.0, "tokens": 2000, "skipped": False},
            {"stage": "generate", "seconds": 0.1, "tokens": 12000, "skipped": True},
        ],
        not_run=[{"task": "humaneval", "reason": "no consent to run code"}],
        overlap=[{"set": "training prompts", "task": "letters", "n": 2}],
        corpus={"distinct_2": 0.5},
        benchmarks={
            "mmlu.base": {"by_category": {"STEM": share(1, 4)}, "by_subject": {"college_physics": share(1, 4)}},
            "mmlu.spd": {"by_category": {"STEM": share(3, 4)}, "by_subject": {"college_physics": share(3, 4)}},
            "arithmetic.spd": {"seconds": 1.0},
        },
    )
    (path / "subspace").mkdir()
    tensors = {}
    for i, layer in enumerate(at):
        for side in "kv":
            tensors[f"layers.{layer}.{side}.basis"] = torch.eye(16)[:, :rank].contiguous()
            tensors[f"layers.{layer}.{side}.singular_values"] = torch.logspace(0, -2 - i / len(at), 16)
    header = {"rank": rank, "energy": energy} if energy else {"rank": rank}
    header |= {"task": "arithmetic", "basis": "random", "dtype": "float32", "num_tokens": 1234, "num_skipped": 3}
    header |= {"num_examples": 47, "num_correctness_tokens": 96, "num_cut": 2, "skipped": {"no token <in> it": 3}}
    save_file(tensors, path / "subspace" / "subspace.safetensors", metadata={"spd": json.dumps(header)})
    generations = [
        {
            "id": f"train/{i}",
            "sample": 0,
            "prompt": "Question: 1+1\nAnswer:",
            "completion": HOSTILE if i == 0 else f"{i}",
            "token_ids": [1] * (10 + i),
            "num_tokens": 10 + i,
            "finish_reason": "stop" if i < 4 else "length",
            "seed": seed,
        }
        for i in range(6)
    ]
    (path / "corpus").mkdir()
    write_lines(path / "corpus" / "generations.jsonl", generations)
    for method, verdicts in (("base", [False, True, False]), ("spd", [True, False, False])):
        rows = [
            {
                "id": f"test/{i}",
                "sample": 0,
                "prompt": HOSTILE,
                "completion": f"{method} says {HOSTILE}",
                "answer": "3",
                "expected": "4",
                "correct": right,
                "reason": "number",
            }
            for i, right in enumerate(verdicts)
        ]
        write_lines(path / "samples" / f"arithmetic.{method}.jsonl", rows)
    (path / "logs").mkdir()
    (path / "logs" / "metrics.csv").write_text("epoch,step,train/loss,val/loss\n0,1,2.0,\n0,2,1.5,\n0,2,,1.9\n")
    return path


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class Page(HTMLParser):
    """Tags and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_read_run(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "r", rank=5))
    assert run.seed == 42 and run.option("subspace.rank") == 5 and run.option("subspace.absent", "x") == "x"
    assert [(s.layer, s.side, s.rank) for s in run.spectra] == [(0, "k", 5), (0, "v", 5), (1, "k", 5), (1, "v", 5)]
    values = np.logspace(0, -2, 16)
    assert run.spectra[0].energy == pytest.approx((values[:5] ** 2).sum() / (values**2).sum(), rel=1e-6)
    assert run.losses == {"train/loss": [(1, 2.0), (2, 1.5)], "val/loss": [(2, 1.9)]}
    assert len(run.completions) == 6 and set(run.samples) == {("arithmetic", "base"), ("arithmetic", "spd")}


def test_read_run_refuses_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent does not exist"):
        read_run(tmp_path / "absent")
    with pytest.raises(UserError, match="is not a run folder"):
        read_run(tmp_path)
    path = make_run(tmp_path / "r")
    (path / "subspace" / "subspace.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match=r"subspace\.safetensors: not a subspace file"):
        read_run(path)
    (path / "results.json").unlink()
    with pytest.raises(UserError, match=r"r holds no results\.json.*fit --config"):
        read_run(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 3}, r"schema=3 is not known \(known: 1, 2\)"),
        ({"scores": None}, "scores=None"),
        ({"method": 3}, "method=3"),
        (
            {"scores": [{**score("base", "t", None, "acc", 0.5), "value": "0.5"}]},
            r"scores\[0\]\.value='0\.5' is no number",
        ),
        ({"scores": [{**score("base", "t", None, "acc", 0.5), "value": math.nan}]}, r"scores\[0\]\.value=nan"),
        ({"scores": [{**score("base", "t", None, "acc", 0.5), "n": True}]}, r"scores\[0\]\.n=True is no count"),
        ({"scores": [{**score("base", "t", None, "acc", 0.5), "ci95": [0.1]}]}, r"ci95=\[0\.1\] is no interval"),
        ({"comparisons": [{"a": "base"}]}, r"comparisons\[0\]\.b is missing"),
        ({"stages": [{"stage": "x", "seconds": 1, "tokens": 1, "skipped": 0}]}, r"skipped=0 is no flag"),
    ],
)
def test_results_schema_names_the_wrong_field(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = make_run(tmp_path / "r")
    results = {**json.loads((path / "results.json").read_text()), **change}
    (path / "results.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match=message):
        read_run(path)


@pytest.mark.parametrize(
    ("name", "text"), [("results.json", "{"), ("environment.json", "["), ("config.yaml", "a: [")], ids=lambda v: v[:7]
)
def test_broken_file_is_named(tmp_path: Path, name: str, text: str) -> None:
    path = make_run(tmp_path / "r")
    (path / name).write_text(text)
    with pytest.raises(UserError, match=f"{name} cannot be read as"):
        read_run(path)


def test_write_results_refuses_a_bad_row_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"scores\[0\]\.method is missing"):
        write_results(tmp_path, "f", None, "base", [{"task": "x"}], [], [])
    assert list(tmp_path.iterdir()) == []


def test_seeds_are_combined_by_hand_computed_mean_and_std(tmp_path: Path) -> None:
    runs = [
        read_run(make_run(tmp_path / "a", seed=1, gain=0.1)),
        read_run(make_run(tmp_path / "b", seed=2, gain=0.3)),
        read_run(make_run(tmp_path / "c", seed=1, rank=8, gain=0.2)),
    ]
    assert [[r.name for r in g] for g in group_by_configuration(runs)] == [["a", "b"], ["c"]]
    assert varying_options(runs) == ["subspace.rank"]
    rows = {(r["configuration"], r["method"], r["task"]): r for r in combine_seeds(runs)}
    two = rows["rank=4", "spd", "arithmetic"]
    assert two["mean"] == pytest.approx(0.4) and two["std"] == pytest.approx(math.sqrt(0.02))  # values 0.3 and 0.5
    assert two["seeds"] == [1, 2]
    assert two["ci95"] is None, "two seeds have no interval"
    assert rows["rank=8", "spd", "arithmetic"]["std"] is None
    runs.append(read_run(make_run(tmp_path / "d", seed=3, gain=0.26)))
    rows = {(r["configuration"], r["method"], r["task"]): r for r in combine_seeds(runs)}
    three, values = rows["rank=4", "spd", "arithmetic"], np.array([0.3, 0.5, 0.46])
    half = 4.302653 * values.std(ddof=1) / math.sqrt(3)  # Student's t, 2 degrees of freedom
    assert three["ci95"] == pytest.approx([values.mean() - half, values.mean() + half])
    assert rows["rank=4", "base", "arithmetic"]["ci95"] is None, "equal scores show no spread"
    table = sweeps.seeds_table(runs)
    assert table.marked == frozenset(), "examples answered under three seeds are not three times as many"
    (row,) = [row for row in table.rows if row[:3] == ("rank=4", "spd", "arithmetic")]
    assert "42.0 ± 10.6" in row[4] and row[5] == "[15.7, 68.3]", row
    assert next(row[:3] for row in table.rows if row[1] == "base") == ("rank=4", "base", "arithmetic"), "other seeds"
    alike = [row[0] for row in sweeps.seeds_table([runs[0], runs[2]]).rows if row[1] == "base"]
    assert alike == ["all"] * 3, "a base that all scored alike stands once"


def test_options_of_the_environment_are_told_apart_by_what_they_were(tmp_path: Path) -> None:
    """Two seeds of one rank and a run of another, all under one text; nothing is set here."""
    paths = [make_run(tmp_path / n, seed=seed, rank=rank) for n, seed, rank in (("a", 1, 4), ("b", 2, 4), ("c", 1, 8))]
    for path in paths:
        config = yaml.safe_load((path / "config.yaml").read_text())
        values = {
            "seed_everything": digest(config["seed_everything"]),
            "subspace.rank": digest(config["subspace"]["rank"]),
        }
        config |= {"seed_everything": "${oc.env:SEED}", "subspace": {**config["subspace"], "rank": "${oc.env:RANK}"}}
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        (path / "environment.json").write_text(json.dumps({"values": values}))
    runs = [read_run(p) for p in paths]
    assert [len(group) for group in group_by_configuration(runs)] == [2, 1]
    assert varying_options(runs) == ["subspace.rank"]
    assert [len(row["seeds"]) for row in combine_seeds(runs) if row["method"] == "spd"] == [2, 2, 2, 1, 1, 1]
    page = write_report(paths, tmp_path / "out", plots=()).read_text()
    assert "${oc.env:RANK}, sha256" in page
    single = write_report(paths[:1], paths[0], plots=()).read_text()
    assert "${oc.env:RANK}" in single


@pytest.mark.parametrize(
    ("file", "change", "name"),
    [
        ("config.yaml", {"trainer": {"callbacks": [{"class_path": "EarlyStopping"}]}}, "trainer.callbacks"),
        ("config.yaml", {"data_dir": "elsewhere"}, "content.data_dir"),
        ("keys.json", {"corpus": {"prompts": "b" * 64}}, "content.prompts"),
        ("keys.json", {"subspace": {"moments": {"examples": "b" * 64}}}, "content.calibration"),
        ("environment.json", {"packages": {"torch": "2.14.0"}}, "versions.torch"),
        ("environment.json", {"stages": {"corpus": 4}}, "versions.corpus"),
    ],
)
def test_runs_of_other_callbacks_data_or_versions_are_no_seeds_of_each_other(
    tmp_path: Path, file: str, change: dict[str, Any], name: str
) -> None:
    paths = [make_run(tmp_path / n, seed=seed) for n, seed in (("a", 1), ("b", 2))]
    keys = {"corpus": {"prompts": "a" * 64}, "subspace": {"moments": {"examples": "a" * 64}}}
    environment = {"packages": {"torch": "2.13.0", "wandb": "1"}, "stages": {"corpus": 3}}
    for path in paths:
        if name != "content.data_dir":  # known by content where that is recorded
            (path / "keys.json").write_text(json.dumps(keys))
            config = yaml.safe_load((path / "config.yaml").read_text())
            (path / "config.yaml").write_text(yaml.safe_dump({**config, "data_dir": str(path)}))
        (path / "environment.json").write_text(json.dumps(environment))
    assert len(group_by_configuration([read_run(p) for p in paths])) == 1
    content = yaml.safe_load((paths[1] / file).read_text())
    for key, value in change.items():
        content[key] = {**content.get(key, {}), **value} if isinstance(value, dict) else value
    (paths[1] / file).write_text(yaml.safe_dump(content) if file == "config.yaml" else json.dumps(content))
    runs = [read_run(p) for p in paths]
    assert [len(group) for group in group_by_configuration(runs)] == [1, 1]
    assert name in varying_options(runs)
    rows = combine_seeds(runs)
    assert all(row["std"] is None and len(row["seeds"]) == 1 for row in rows)
    assert len({row["configuration"] for row in rows}) == 2


def test_scores_of_other_examples_are_not_averaged(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / n, seed=seed) for n, seed in (("a", 1), ("b", 2))]
    for path, examples in zip(paths, ("a" * 64, "b" * 64)):
        results = json.loads((path / "results.json").read_text())
        for task in ("arithmetic", "letters"):
            results["benchmarks"].setdefault(f"{task}.spd", {})["examples"] = examples
        (path / "results.json").write_text(json.dumps(results).replace("arithmetic", "gsm8k"))
    rows = [r for r in combine_seeds([read_run(p) for p in paths]) if r["method"] == "spd"]
    found = {(r["configuration"], r["task"]): r["seeds"] for r in rows}
    assert found["spd (examples aaaaaaaa)", "gsm8k"] == [1] and found["spd (examples bbbbbbbb)", "gsm8k"] == [2]
    assert found["spd", "letters"] == [1, 2], "the seed draws the rows of a generated task"


def test_rows_that_the_seed_draws_are_no_other_data(tmp_path: Path) -> None:
    """Prompts and calibration rows of a generated task differ between seeds; those of another differ by the data."""
    for task, groups in (("arithmetic", 1), ("gsm8k", 2)):
        paths = [make_run(tmp_path / task / n, seed=seed) for n, seed in (("a", 1), ("b", 2))]
        for path in paths:
            other = {"prompts": path.name * 64}, {"examples": path.name * 64}
            keys = {"corpus": {"task": task, **other[0]}, "subspace": {"moments": {"task": task, **other[1]}}}
            (path / "keys.json").write_text(json.dumps(keys))
        assert len(group_by_configuration([read_run(p) for p in paths])) == groups


def test_labels_are_short_and_say_which_option_they_mean(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "r", layers=[0]))
    names = ["data.model_name_or_path", "subspace.model_name_or_path", "subspace.layers"]
    assert label(run, names) == "data.model_name_or_path=tiny, subspace.model_name_or_path=tiny, layers=[0]"
    assert label(run, [*names, "subspace.rank"]) == "r", "longer than 80 characters"
    assert label(run, ["content.task_version", "subspace.layers"]) == "layers=[0]", "a base alone has no corpus"


def test_a_run_repeated_with_its_seed_is_no_further_seed(tmp_path: Path) -> None:
    runs = [
        read_run(make_run(tmp_path / n, seed=s, gain=g)) for n, s, g in (("a", 1, 0.1), ("b", 1, 0.1), ("c", 2, 0.3))
    ]
    rows = {(r["method"], r["task"]): r for r in combine_seeds(runs)}
    row = rows["spd", "arithmetic"]
    assert row["seeds"] == [1, 2] and row["runs"] == ["a", "b", "c"]
    assert row["mean"] == pytest.approx(0.4) and row["std"] == pytest.approx(math.sqrt(0.02))
    assert {(r["method"], r["task"]): r for r in combine_seeds(runs[:2])}["spd", "arithmetic"]["std"] is None


def test_runs_that_only_show_other_things_are_one_configuration(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, seed=seed) for seed, name in ((1, "a"), (2, "b"))]
    config = yaml.safe_load((runs[1] / "config.yaml").read_text())
    config["evaluation"] = {"every_n_steps": 5, "when": ["after"], "tasks": ["gsm8k"]}
    (runs[1] / "config.yaml").write_text(yaml.safe_dump(config))
    assert [len(group) for group in group_by_configuration(read_run(run) for run in runs)] == [2]


@pytest.mark.parametrize(("command", "word"), [("python -m spd_lightning test --run_dir fit", "test"), (None, "fit")])
def test_the_report_names_the_command_that_wrote_it(tmp_path: Path, command: str | None, word: str) -> None:
    run = make_run(tmp_path / "r")
    (run / "environment.json").write_text(json.dumps({"command": command}))
    assert f"python -m spd_lightning {word} --config r/config.yaml" in write_report([run], run).read_text()


def test_terminal_table(tmp_path: Path) -> None:
    lines = render_table(read_run(make_run(tmp_path / "r"))).splitlines()
    assert lines[0].split() == ["benchmark", "metric", "split", "n", "base", "spd"]
    first = " ".join(lines[2].split())
    assert first == "arithmetic exact_match_flexible (%) in 100 20.0 [12.0, 28.0] 50.0 [42.0, 58.0]†"
    assert "33.0 [25.0, 41.0]" in lines[3] and "†" not in lines[3], "a difference in the noise marks no best value"
    assert "0.683 [0.603, 0.763]" in lines[4] and "0.679" in lines[4]
    assert lines[5].startswith("humaneval") and "not run" in lines[5] and " 0.0" not in lines[5]
    assert "humaneval was not run: no consent to run code" in lines[-1]
    assert max(map(len, lines)) <= 120


def test_best_needs_a_test_against_every_other_method(tmp_path: Path) -> None:
    path = make_run(tmp_path / "r")
    results = json.loads((path / "results.json").read_text())
    results["scores"].append(score("projected", "arithmetic", "in", "exact_match_flexible", 0.49))
    (path / "results.json").write_text(json.dumps(results))
    assert tables.score_table(read_run(path)).marked == frozenset()


def test_one_row_representation_renders_three_ways() -> None:
    table = render.Table(("a", "b"), [("x|y <b>", "1.0"), ("`z`", "22.0")], frozenset({(1, 1)}))
    assert render.text_table(table).splitlines()[2:] == ["x|y <b>    1.0", "`z`      22.0*"]
    markdown = render.markdown_table(table).splitlines()
    assert markdown[1] == "| --- | ---: |" and markdown[2] == r"| x\|y &lt;b&gt; | 1.0 |"
    assert markdown[3] == r"| \`z\` | **22.0\*** |", "with the mark that a note explains"
    page = render_html("t", [table])
    assert "x|y &lt;b&gt;" in page and '<td class="number" data-of="b"><strong>22.0*</strong></td>' in page


def test_formats() -> None:
    assert wording.format_value(0.1234, "pass@1") == "12.3" and wording.format_value(0.1234, "nll_per_char") == "0.123"
    assert wording.format_interval([-0.1, 0.25], "acc", sign=True) == "[-10.0, +25.0]"
    assert [wording.format_p(p) for p in (None, 0.0001, 0.25)] == ["-", "<0.001", "0.250"]


def test_caveats_follow_the_data(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "r"))
    shown, noise, limits = caveats(run)
    assert shown.endswith("p <0.001 after correction: the two differ.") and "spd - base: +30.0 points" in shown
    assert "inside the noise" in noise and "3.0 points, 95% interval [-7.0, +13.0], 13 gained and 10 lost of" in noise
    needed = examples_needed(run.comparisons[1], family=2)
    assert needed is not None and f"about {needed:,} examples are needed (with 2 comparisons in the table)." in noise
    assert needed > (examples_needed(run.comparisons[1]) or 0) > 100 and "training seeds" in limits


def test_sentences_stars_and_intervals_are_of_one_test(tmp_path: Path) -> None:
    """Of rows as they are computed: what is starred has 0 outside; what the correction takes back says so."""
    path = make_run(tmp_path / "r")
    results = json.loads((path / "results.json").read_text())
    results["comparisons"] = []
    for lost, gained, p_holm in ((0, 5, 0.3), (2, 12, 0.04), (3, 12, 0.07), (0, 0, 1.0), (4, 30, None)):
        found = share_difference(lost, gained, 100)
        row = comparison("arithmetic", "acc", found.delta, p_holm, lost=lost)
        results["comparisons"].append({**row, "ci95": list(found.interval or ()), "p_value": found.p_value})
    (path / "results.json").write_text(json.dumps(results))
    run = read_run(path)
    assert [tables.is_shown(c) for c in run.comparisons] == [False, True, False, False, False]
    assert all(c["ci95"][0] > 0 for c in run.comparisons if tables.is_shown(c))
    table = tables.comparison_table(run)
    assert table.marked == frozenset({(1, 3)}) and "the others claim nothing" in table.note and tables.family(run) == 4
    noise, shown, taken_back, equal, other = caveats(run)[:5]
    assert "the difference is inside the noise. To show" in noise
    assert shown.endswith("p = 0.040 after correction: the two differ.")
    assert "alone the two would differ (p = 0.035), among 4 comparisons they do not. To show" in taken_back
    assert "+0.0 points, 95% interval [-3.6, +3.6], 0 gained and 0 lost of 100" in equal and "To show" not in equal
    assert other.endswith("p <0.001 uncorrected: nothing is claimed, another metric stands for this benchmark.")


def test_results_of_an_earlier_version_are_read_and_say_so(tmp_path: Path) -> None:
    path = make_run(tmp_path / "r")
    results = json.loads((path / "results.json").read_text())
    assert results["schema"] == 2
    for row in results["comparisons"]:
        del row["only_a"], row["only_b"]
    (path / "results.json").write_text(json.dumps({**results, "schema": 1}))
    lines = caveats(read_run(path))
    assert lines[2].startswith("An earlier version scored this run") and "To show" not in lines[1]


def test_intervals_that_do_not_exist_are_left_out(tmp_path: Path) -> None:
    path = make_run(tmp_path / "r")
    results = json.loads((path / "results.json").read_text())
    for row in [*results["scores"], *results["comparisons"]]:
        row["ci95"] = None
    (path / "results.json").write_text(json.dumps(results))
    text = write_report([path], path).read_text(encoding="utf-8")
    assert "+30.0 points, 40 gained and 10 lost of 100, p" in text
    assert "None" not in text


def test_the_evidence_of_one_run_stands_in_this_order(tmp_path: Path) -> None:
    sections = one_run(read_run(make_run(tmp_path / "r")))
    assert [section.title for section in sections] == [
        "Scores",
        "Comparisons",
        "Self-generated corpus",
        "Capability subspace",
        "Fine-tuning",
        "Overlap of training text and benchmarks",
        "Samples",
        "How each number is computed",
        "How to reproduce",
    ]
    assert sections[0].headline == "arithmetic: base 20.0%, spd 50.0%; and 2 other benchmarks"
    assert sections[1].headline == "1 of 2 show a difference after correction"


def test_report_of_one_run(tmp_path: Path) -> None:
    path = make_run(tmp_path / "r")
    before = (path / "results.json").read_bytes()
    assert write_report([path], path) == path / "report.html"
    assert (path / "results.json").read_bytes() == before
    assert sorted(p.name for p in (path / "plots").iterdir()) == [
        "differences.png",
        "lengths.png",
        "loss.png",
        "scores.png",
        "spectrum.png",
        "time.png",
    ]
    text = (path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == [] and page.tags.count("script") == 2 and page.tags.count("svg") == 6 and "img" not in page.tags
    assert all(a.startswith("#") for a in page.addresses), "the page refers to nothing outside"
    for words in ("no consent to run code", "training prompts", "base, spd; right or wrong changed in 2", "reused"):
        assert words in text
    assert "alert(&#34;1&#34;)" in text and "\x1b" not in text
    markdown = (path / "report.md").read_text(encoding="utf-8")
    assert "spd against base, sample by sample: 1 wrong became right" in markdown
    assert set(re.findall(r"\]\((plots/[^)]+)\)", markdown)) == {f"plots/{p.name}" for p in (path / "plots").iterdir()}
    outside = re.sub(r"(?ms)^(`{3,})text\n.*?^\1$", "", markdown)
    assert "<script" not in outside and "<img" not in outside, "model text stays inside its fence"


def test_report_says_what_became_of_the_calibration_set_and_what_a_control_holds(tmp_path: Path) -> None:
    path = make_run(tmp_path / "r", energy={"0.k": 0.125})
    assert read_run(path).spectra[0].energy == 0.125
    write_report([path], path)
    text = (path / "report.md").read_text(encoding="utf-8")
    assert "random basis from 47 examples of arithmetic in float32: 1,234 tokens, 96 of them" in text
    assert "3 examples skipped; no token" in text and "2 with a span cut by max" in text
    assert "| 4 | 16 | 12.5 | 25.0 |" in text


def test_report_is_deterministic_and_copies_results_elsewhere(tmp_path: Path) -> None:
    path = make_run(tmp_path / "r")
    for name in ("x", "y"):
        write_report([path], tmp_path / name)
    files = sorted(p.relative_to(tmp_path / "x") for p in (tmp_path / "x").rglob("*") if p.is_file())
    assert all((tmp_path / "x" / f).read_bytes() == (tmp_path / "y" / f).read_bytes() for f in files)
    assert json.loads((tmp_path / "x" / "results.json").read_text()) == read_run(path).results


def test_report_of_a_bare_evaluation(tmp_path: Path) -> None:
    """Only results.json, nothing scored: no plots, and no claim."""
    write_results(tmp_path / "r", "f", None, None, [], [], [])
    text = write_report([tmp_path / "r"], tmp_path / "r").read_text()
    assert "No benchmark was scored" in text and "no difference is claimed" in text
    assert not (tmp_path / "r" / "plots").exists()
    assert tables.render_table(read_run(tmp_path / "r")) == "No benchmark was scored."


def test_options_of_stages_that_did_not_run_are_not_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    shown = "| subspace.model\\_name\\_or\\_path |", "| subspace.rank |", "| data.method |", "| trainer.max\\_epochs |"
    for stages, expected in (
        (["extract", "generate"], 3),
        (["extract", "generate", "fine_tune"], 4),
        (["evaluate"], 1),
    ):
        results = json.loads((run / "results.json").read_text())
        results["stages"] = [{"stage": name, "seconds": 1.0, "tokens": None, "skipped": False} for name in stages]
        (run / "results.json").write_text(json.dumps(results))
        write_report([run], run)
        text = (run / "report.md").read_text()
        assert [name in text for name in shown] == [i < expected for i in range(4)]


def test_report_of_several_runs(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / f"r{rank}{i}{seed}", seed=seed, rank=rank, layers=layers, gain=rank / 100 + seed / 1000)
        for rank in (4, 8)
        for i, layers in enumerate(([0], [1]))
        for seed in (1, 2)
    ]
    out = tmp_path / "out"
    text = write_report([*runs, runs[0]], out).read_text()
    results = json.loads((out / "results.json").read_text())
    assert len(results["runs"]) == 8 and len(results["scores"]) == 48 and results["method"] == "spd"
    assert (out / "plots" / "sweep.png").is_file() and "subspace.rank \\ subspace.layers" in text
    grid = sweeps.sweep_grid([read_run(r) for r in runs])
    assert grid is not None and grid.rows == ["4", "8"] and grid.columns == ["[0]", "[1]"]
    assert grid.values == [[pytest.approx(0.2415)] * 2, [pytest.approx(0.2815)] * 2]
    with pytest.raises(UserError, match="out is itself a report over several runs"):
        read_run(out)


def test_report_of_several_runs_compares_their_subspaces(tmp_path: Path) -> None:
    """Ranks 4 and 8 are nested (cosine 1); the third run shares no site with them, so its cells stay blank."""
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", rank=8), make_run(tmp_path / "c", rank=2, at=(2, 3))]
    text = write_report([*runs, make_run(tmp_path / "d", seed=7)], tmp_path / "out").read_text()
    assert (tmp_path / "out" / "plots" / "subspaces.png").is_file()
    row = r'<th scope="row">(1: rank=4)</th>\s<td[^>]*>(2: rank=8)</td>\s<td[^>]*>(layer ., .)</td>(.*?)</tr>'
    cells = re.findall(row, text, re.S)
    assert [c[2] for c in cells] == ["layer 0, k", "layer 0, v", "layer 1, k", "layer 1, v"]
    assert all(re.findall(r">([\d.]+)<", c[3])[:2] == ["1", "0.5"] for c in cells), "nested; by chance 8 of 16"
    assert "3: rank=2</t" in text.split("</svg>")[-2] and ">3: rank=2</td>" not in text and ">4: " not in text, (
        "no shared site; the same subspace appears once"
    )


def test_more_subspaces_than_can_be_read_side_by_side_are_named_only(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"{rank}", rank=rank) for rank in range(1, MOST_SUBSPACES + 2)]
    text = write_report(runs, tmp_path / "out").read_text()
    assert f"{len(runs)} different ones, more than {MOST_SUBSPACES}: " in text
    assert not (tmp_path / "out" / "plots" / "subspaces.png").exists()


def test_subspaces_of_no_common_site_are_not_compared(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", rank=8, at=(2, 3))]
    text = write_report(runs, tmp_path / "out").read_text()
    assert "Overlap of the subspaces" not in text


@pytest.mark.parametrize(
    ("overlap", "shown"),
    [([], "None was found."), ({"letters": "2 training prompts"}, "2 training prompts")],
)
def test_overlap_that_was_not_found_or_has_one_row_a_set(tmp_path: Path, overlap: Any, shown: str) -> None:
    path = make_run(tmp_path / "r")
    results = json.loads((path / "results.json").read_text())
    (path / "results.json").write_text(json.dumps({**results, "overlap": overlap}))
    section = write_report([path], tmp_path / "out").read_text().split("Overlap of training text and benchmarks")[-1]
    assert shown in section[:3000]


def test_a_text_in_two_sets_is_two_matches(tmp_path: Path) -> None:
    path = make_run(tmp_path / "r")
    for shared, shown in (((1, 1), "2 matches"), ((1, 0), "1 match of"), ((0, 0), "no matches")):
        results = json.loads((path / "results.json").read_text())
        results["overlap"] = [
            {"set": s, "task": "letters", "shared": n} for s, n in zip(("calibration", "prompts"), shared)
        ]
        (path / "results.json").write_text(json.dumps(results))
        (section,) = (s for s in one_run(read_run(path)) if s.title.startswith("Overlap"))
        assert section.headline.startswith(shown)


def test_sections_on_the_first_round_say_so_where_there_are_later_ones(tmp_path: Path) -> None:
    """Corpus, subspace and losses are those of round 1; what is scored is the last student."""
    path = make_run(tmp_path / "r")
    note = "Of the first of 2 rounds; the student is that of the last."
    assert not any(note in section.headline for section in one_run(read_run(path)))
    (path / "round-2").mkdir()
    of_first = [section.title for section in one_run(read_run(path)) if section.headline.startswith(note)]
    assert of_first == ["Self-generated corpus", "Capability subspace", "Fine-tuning"]


def test_report_refuses_to_overwrite_a_run(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=2)]
    with pytest.raises(UserError, match=r"out=.*a .--out. is one of the 2 runs"):
        write_report(runs, runs[0])
    with pytest.raises(UserError, match="No run folder given"):
        write_report([], tmp_path / "out")


def test_sweep_grid_leaves_missing_cells_empty(tmp_path: Path) -> None:
    runs = [
        read_run(make_run(tmp_path / "a", rank=16, layers=[0])),
        read_run(make_run(tmp_path / "b", rank=4, layers=[1])),
    ]
    grid = sweeps.sweep_grid(runs)
    assert grid is not None and grid.rows == ["4", "16"] and grid.values[0][0] is None and grid.values[1][1] is None
    assert sweeps.sweep_grid(runs[:1]) is None
    texts = [t.get_text() for t in plots.paper_figure(figures.surface(grid)).axes[0].texts]
    assert texts == ["-", "50.0\n[42.0, 58.0]", "50.0\n[42.0, 58.0]", "-"]


def test_a_cell_of_a_sweep_is_the_mean_over_its_seeds(tmp_path: Path) -> None:
    """A run repeated with its seed has no second voice; the table of means over seeds has the same number."""
    made = [("a", 8, 1, 0.1), ("b", 8, 1, 0.1), ("c", 8, 2, 0.3), ("d", 4, 1, 0.0)]
    runs = [read_run(make_run(tmp_path / name, rank=rank, seed=seed, gain=gain)) for name, rank, seed, gain in made]
    grid = sweeps.sweep_grid(runs)
    assert grid is not None and grid.rows == ["4", "8"] and grid.values[1][0] == pytest.approx(0.4)
    rows = [r for r in combine_seeds(runs) if r["method"] == "spd" and r["runs"] == ["a", "b", "c"]]
    assert [r["mean"] for r in rows if r["task"] == "arithmetic"] == [grid.values[1][0]]


def test_runs_of_another_method_or_model_are_no_cells_of_a_sweep(tmp_path: Path) -> None:
    """An SSD student has the default rank among its options, and no subspace: its score would move that rank's cell."""
    runs = [make_run(tmp_path / f"{r}", rank=r, gain=g) for r, g in ((4, 0.0), (8, 0.1))]
    others = [make_run(tmp_path / name, rank=8, gain=0.4) for name in ("ssd", "big")]
    for file, old, new in (("ssd/config.yaml", "spd", "ssd"), ("ssd/results.json", '"spd"', '"ssd"')):
        (tmp_path / file).write_text((tmp_path / file).read_text().replace(old, new))
    config = tmp_path / "big" / "config.yaml"
    config.write_text(config.read_text().replace("model_name_or_path: tiny", "model_name_or_path: models/big"))
    alone = sweeps.sweep_grid([read_run(r) for r in runs])
    grid = sweeps.sweep_grid([read_run(r) for r in [*others, *runs]])
    assert grid is not None and alone is not None and grid.values == alone.values
    assert grid.intervals == alone.intervals and "alone" not in alone.title
    assert grid.title == f"{alone.title}, of tiny by spd on arithmetic alone"
    assert sweeps.sweep_grid([read_run(r) for r in [runs[0], *others]]) is None, "one rank each"


def test_runs_that_share_a_cell_and_differ_otherwise_are_not_averaged(tmp_path: Path) -> None:
    """Rank by temperature: the cell of a rank would be the mean of two temperatures, called one over seeds."""
    runs = []
    for rank in (4, 8):
        for temperature, gain in ((0.7, 0.0), (1.0, 0.4)):
            path = make_run(tmp_path / f"{rank}-{temperature}", rank=rank, gain=gain)
            config = yaml.safe_load((path / "config.yaml").read_text())
            config["data"]["temperature"] = temperature
            config["model"] = {"lora_r": rank}  # goes with the rank: no cell holds two
            (path / "config.yaml").write_text(yaml.safe_dump(config))
            runs.append(read_run(path))
    grid = sweeps.sweep_grid(runs)
    assert grid is not None and grid.values == [[pytest.approx(0.2)]] * 2 and grid.left_out == 2
    assert grid.title == "arithmetic, exact_match_flexible (%), at data.temperature=0.7 alone"
    text = write_report([run.path for run in runs], tmp_path / "out", plots=()).read_text()
    assert "2 runs of other settings are not in it" in text
    assert "temperature" in summary([run.path for run in runs]), "the table at the end of a sweep has all of them"
    whole = sweeps.sweep_grid([run for run in runs if run.option("data.temperature") == 1.0])
    assert whole is not None and whole.left_out == 0 and "alone" not in whole.title


def test_colours_span_the_noise_where_a_cell_has_no_interval(tmp_path: Path) -> None:
    """Two seeds a cell have none; half a point would be all colours from one end to the other."""
    runs = [
        read_run(make_run(tmp_path / f"{rank}-{seed}", seed=seed, rank=rank, gain=0.3 + rank / 1000))
        for rank in (4, 8)
        for seed in (1, 2)
    ]
    grid = sweeps.sweep_grid(runs)
    assert grid is not None and grid.intervals == [[None], [None]] and grid.noise == pytest.approx(0.16)
    chart = figures.surface(grid)
    assert chart.high - chart.low == pytest.approx(16.0)


def test_losses_that_are_no_numbers_are_left_out_and_said(tmp_path: Path) -> None:
    path = make_run(tmp_path / "r")
    (path / "logs" / "metrics.csv").write_text("step,train/loss,val/loss\n1,2.0,\n2,1e300,\n3,nan,inf\n")
    text = write_report([path], tmp_path / "out").read_text()
    assert "train/loss ends at nan, val/loss ends at inf" in text and "Left out: 2 that are no numbers." in text
    chart = figures.losses(read_run(path))
    assert chart is not None and [curve.points for curve in chart.curves] == [[(1.0, 2.0), (2.0, 1e300)]]


def test_bins_of_a_histogram_hold_equally_many_lengths(tmp_path: Path) -> None:
    """Bins of a fraction more than one token would hold one length and two in turns: a comb that no corpus has."""
    path = make_run(tmp_path / "r")
    for longest in (1, 31, 32, 40, 64, 1000):
        row = {"prompt": "", "completion": "", "finish_reason": "stop"}
        write_lines(
            path / "corpus" / "generations.jsonl", [{**row, "num_tokens": i} for i in range(longest + 1) for _ in "ab"]
        )
        chart = figures.lengths(read_run(path))
        assert chart is not None and sum(chart.counts[0]) == 2 * (longest + 1) and len(chart.counts[0]) <= 32
        assert len(set(chart.counts[0][:-1])) <= 1 and all(edge == int(edge) for edge in chart.edges)


def test_plots_say_what_they_show(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "r"))
    for chart in (figures.spectrum(run), figures.scores(run), figures.losses(run), figures.lengths(run)):
        assert chart is not None and plots.paper_figure(chart).axes[0].get_xlabel()
    run.scores[0]["n"] = 90  # of the base, which answered fewer
    chart = figures.scores(run)
    assert chart is not None and chart.rows[0].label.endswith("n=90/100")
    many = figures.spectrum(read_run(make_run(tmp_path / "many", at=range(20))))
    assert many is not None
    assert plots.paper_figure(many).axes[1].get_ylabel() == "layer (solid: K, dashed: V)"
    overlap = plots.paper_figure(figures.overlap([[1.0, 0.25], [0.25, 1.0]], ["a$b", "c"], expected=0.5))
    assert [t.get_text() for t in overlap.axes[0].texts] == ["1.00", "0.25", "0.25", "1.00"]
    assert "by chance 0.50" in overlap.axes[0].get_title()
    path = plots.write_plot(overlap, tmp_path / "overlap.png")
    assert path.read_bytes().startswith(b"\x89PNG") and b"Software" not in path.read_bytes()


def test_scores_by_subject_and_category_are_tables_of_the_page(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    write_report([tmp_path / "run"], tmp_path / "run")
    text = (tmp_path / "run" / "report.md").read_text()
    assert "### mmlu by category\n\n| category | n | base | spd |" in text
    assert "| college physics | 4 | 25.0 \\[4.6, 69.9\\] | 75.0 \\[30.1, 95.4\\] |" in text
    assert "arithmetic by" not in text


def test_pass_at_k_stands_by_k_with_the_place_where_the_base_catches_up(tmp_path: Path) -> None:
    path = make_run(tmp_path / "r")
    assert pass_blocks(read_run(path)) == []  # one answer an example
    results = json.loads((path / "results.json").read_text())
    row = {"task": "arithmetic", "protocol": "standard", "n": 4, "samples": 4, "decoding": "temperature 1, top-p 1"}
    results["passes"] = [
        {**row, "method": "base", "pass": {"1": 0.2, "2": 0.4, "4": 0.6}, "crossover": None, "ahead_at_1": None},
        {**row, "method": "spd", "pass": {"1": 0.3, "2": 0.35, "4": 0.4}, "crossover": 2, "ahead_at_1": True},
        {**row, "method": "ssd", "pass": {"1": 0.1, "2": 0.15}, "crossover": None, "ahead_at_1": False},
    ]
    (path / "results.json").write_text(json.dumps(results))
    alone = {**results, "passes": results["passes"][1:]}
    (path / "results.json").write_text(json.dumps(alone))
    _, table = pass_blocks(read_run(path))
    assert isinstance(table, render.Table) and [row[-1] for row in table.rows] == ["-", "-"], "no base to be level with"
    (path / "results.json").write_text(json.dumps(results))
    _, table = pass_blocks(read_run(path))
    assert isinstance(table, render.Table) and table.header[4:] == ("pass@1", "pass@2", "pass@4", "against the base")
    assert [line[3:] for line in table.rows] == [
        ("4 x 4", "20.0", "40.0", "60.0", "-"),
        ("4 x 4", "30.0", "35.0", "40.0", "ahead, but not from k = 2"),
        ("4 x 4", "10.0", "15.0", "-", "behind up to 2"),
    ]
    assert "ahead, but not from k = 2" in write_report([path], path).read_text()
    results["passes"][1] |= {"pass": {"1": 0.3, "2": 0.35, "4": 0.7}, "crossover": None}
    (path / "results.json").write_text(json.dumps(results))
    _, table = pass_blocks(read_run(path))
    assert isinstance(table, render.Table) and table.rows[1][-1] == "ahead up to 4, but not at 2", "35.0 against 40.0"


@pytest.mark.slow
def test_sixty_runs_are_reported_in_twenty_seconds(tmp_path: Path) -> None:
    """Of processor time: 28 arms with 1,000 samples each of base and student."""
    runs = [make_run(tmp_path / f"{rank}-{seed}", seed, rank) for rank in range(1, 17) for seed in (1, 2, 3)]
    runs += [make_run(tmp_path / f"last-{seed}", seed, 4, layers=[seed]) for seed in range(12)]
    for run in runs:
        for path in (run / "samples").iterdir():
            row = json.loads(path.read_text().splitlines()[0])
            write_lines(path, [{**row, "id": f"test/{i}", "correct": i % 3 == 0} for i in range(1000)])
    start = time.process_time()
    write_report(runs, tmp_path / "out")
    assert len(runs) == 60 and time.process_time() - start < 20
    assert (tmp_path / "out" / "report.html").stat().st_size < 5e6
