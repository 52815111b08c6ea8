"""``--subspace.task '[arithmetic, letters]'``: one run on several capabilities, and what it shares with others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from spd_lightning.artifacts.files import read_jsonl
from spd_lightning.cli.program import main
from spd_lightning.subspace.choice import subspace_from_moments
from spd_lightning.subspace.mixture import mixed
from spd_lightning.subspace.moments import Moments
from spd_lightning.subspace.subspace import CapabilitySubspace
from tests.integration import test_cli_ddp as ddp
from tests.settings import in_file

OTHER = ("--subspace.task=", "--evaluation.tasks=", "--evaluation.limit=", "--data.num_prompts=")
OPTIONS = [s for s in ddp.OPTIONS if not s.startswith(OTHER)] + ["--data.num_prompts=6", "--evaluation.limit=3"]
LONE = ("arithmetic", "letters")


def run(command: str, model: str, folder: Path, task: str, *options: str) -> Path:
    given = [f"--subspace.model_name_or_path={model}", f"--run_dir={folder}", f"--subspace.task={task}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        assert main([command, *given, *in_file(OPTIONS), *options]) == 0
    return folder


@pytest.fixture(scope="module")
def mix(tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the processes of the last test have
    folder = run("fit", tiny_model_dir, tmp_path_factory.mktemp("several") / "mix", "[letters, arithmetic]")
    torch.set_num_threads(threads)
    return folder


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def artifacts(folder: Path, stage: str) -> set[str]:
    return {path.name for path in (folder.parent / ".artifacts").glob(f"{stage}-*")}


def test_every_table_of_the_report_has_a_row_for_each(mix: Path) -> None:
    found = results(mix)
    assert found["trained_on"] == "letters + arithmetic"
    assert {(s["task"], s["split"]) for s in found["scores"]} == {("letters", "in"), ("arithmetic", "in")}, "by default"
    assert set(found["calibration"]["tasks"]) == set(found["corpus"]["tasks"]) == set(LONE)
    assert {name: own["n"] for name, own in found["corpus"]["tasks"].items()} == {"arithmetic": 3, "letters": 3}
    health = [row["stage"] for row in found["health"]]
    assert {f"extract {name}" for name in LONE} | {f"generate {name}" for name in LONE} <= set(health)
    overlap = {(row["set"], row["task"]) for row in found["overlap"]}
    assert overlap == {
        (f"{what} of {n}", b) for what in ("training prompts", "calibration") for n in LONE for b in LONE
    }
    ids = [r["id"] for r in read_jsonl(mix / "corpus" / "generations.jsonl")]
    assert ids[:2] == ["arithmetic/train/s42/0", "letters/train/s42/0"] and len(set(ids)) == 6
    report = (mix / "report.md").read_text()
    assert "| subspace.task | letters, arithmetic |" in report
    assert "basis from 14 examples of arithmetic + letters" in report
    rows = [line.split("|")[1:4] for line in report.splitlines()]
    for name in LONE:
        assert [f" {name} ", " 50.0% ", " 7 "] in rows, "calibration: its weight and examples"
        assert [f" {name} ", " 3 "] in [row[:2] for row in rows], "corpus: its completions"


def test_moments_are_shared_with_runs_on_one_task_and_mixed_by_the_rule(mix: Path, tiny_model_dir: str) -> None:
    before = artifacts(mix, "moments")
    assert len(before) == 2
    found: dict[str, Moments] = {}
    for name in LONE:
        run("generate", tiny_model_dir, mix.with_name(name), name)
        keys = json.loads((mix.with_name(name) / "keys.json").read_text())
        assert keys["subspace"]["moments"]["task"] == keys["corpus"]["task"] == name
    assert artifacts(mix, "moments") == before, "those of the mix were taken"
    for path in (mix.parent / ".artifacts").glob("moments-*"):
        moments = Moments.load(path / "moments.safetensors")
        found[moments.metadata["task"]] = moments
    own = subspace_from_moments(mixed(found, {"arithmetic": 0.5, "letters": 0.5}))
    written = CapabilitySubspace.load(mix / "subspace" / "subspace.safetensors")
    assert written.metadata == own.metadata
    assert all((written.bases[site] == own.bases[site]).all() for site in own.bases)


def test_order_changes_nothing_weights_need_no_gradient_and_a_list_of_one_is_that_task(
    mix: Path, tiny_model_dir: str, caplog: pytest.LogCaptureFixture
) -> None:
    moments, corpora = artifacts(mix, "moments"), artifacts(mix, "corpus")
    other = run("generate", tiny_model_dir, mix.with_name("other"), "[arithmetic, letters]")
    assert (artifacts(mix, "moments"), artifacts(mix, "corpus")) == (moments, corpora)
    for file in ("subspace/subspace.safetensors", "corpus/generations.jsonl"):
        assert (other / file).read_bytes() == (mix / file).read_bytes()
    weighed = run("generate", tiny_model_dir, mix.with_name("weighed"), "{arithmetic: 2, letters: 1}")
    assert artifacts(mix, "moments") == moments and len(artifacts(mix, "corpus")) == len(corpora) + 1
    counts = [r["id"].split("/")[0] for r in read_jsonl(weighed / "corpus" / "generations.jsonl")]
    assert (counts.count("arithmetic"), counts.count("letters")) == (4, 2)
    one = run("extract", tiny_model_dir, mix.with_name("one"), "[letters]")
    run("extract", tiny_model_dir, one, "letters")  # another configuration of this folder would be refused
    assert "task: letters\n" in (one / "config.yaml").read_text()


def test_two_files_of_ones_own(tiny_model_dir: str, tmp_path: Path) -> None:
    """Two tasks with rules of their own: rows of each, scores of each, and one is no part of the other's domain."""
    rows = [{"prompt": f"Say {i}:", "target": f" {i}"} for i in range(20)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "capitals.csv").write_text("question,answer\n" + "".join(f"Capital {i}?, Rome\n" for i in range(20)))
    table = {"path": str(tmp_path / "capitals.csv"), "columns": {"prompt": "question", "target": "answer"}}
    files = json.dumps({"sums": str(tmp_path / "sums.jsonl"), "capitals": {**table, "score": "contains"}})
    tasks = "[custom:sums, custom:capitals]"
    folder = run("fit", tiny_model_dir, tmp_path / "run", tasks, f"--subspace.task_file={files}")
    found = results(folder)
    assert {(s["task"], s["split"], s["n"]) for s in found["scores"]} == {
        ("custom:sums", "in", 3),
        ("custom:capitals", "in", 3),
    }
    ids = [r["id"] for r in read_jsonl(folder / "corpus" / "generations.jsonl")]
    assert len(set(ids)) == 6 and sum(name.startswith("custom:capitals/") for name in ids) == 3
    alone = ["--evaluation.tasks=[custom:sums, custom:capitals]", f"--subspace.task_file={files}"]
    one = results(run("fit", tiny_model_dir, tmp_path / "one", "custom:sums", *alone))
    split = {score["task"]: score["split"] for score in one["scores"]}
    assert split == {"custom:sums": "in", "custom:capitals": "transfer"}
    before = len(results(tmp_path / "one")["scores"])
    assert main(["test", str(tmp_path / "one"), "--tasks", "[custom:capitals]"]) == 0
    assert len(results(tmp_path / "one")["scores"]) == before, "scored already"


def test_commands_on_a_mix(
    mix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert main(["export", str(mix), "--form", "adapter", "--out", str(tmp_path / "out")]) == 0
    assert "- Task: letters + arithmetic\n" in (tmp_path / "out" / "README.md").read_text()
    assert main(["contamination", str(mix), "--limit", "0"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[-2:]] == ["letters", "arithmetic"]
    assert main(["report", str(mix), "--out", str(tmp_path / "report")]) == 0
    again = ["test", "--config", str(mix / "config.yaml"), "--run_dir", str(tmp_path / "test")]
    assert main([*again, f"--evaluation.adapter={mix / 'adapter'}", "--evaluation.methods=[base, student]"]) == 0
    scores = results(tmp_path / "test")["scores"]
    assert {(s["method"], s["task"], s["split"]) for s in scores} >= {("spd", name, "in") for name in LONE}


def test_a_dry_run_takes_two_of_each_and_an_estimate_counts_both(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        run(
            "fit",
            tiny_model_dir,
            tmp_path / "dry",
            "{arithmetic: 1, letters: 50}",
            "--dry_run",
            "--data.num_prompts=99",
        )
    assert "[generate] 4 prompts of arithmetic + letters, method spd" in caplog.messages
    assert list(tmp_path.iterdir()) == []
    capsys.readouterr()
    run("fit", tiny_model_dir, tmp_path / "estimate", "{arithmetic: 1, letters: 2}", "--estimate")
    out = capsys.readouterr().out
    assert "14 examples of" in out and "2 prompts of" in out and "; 4 prompts of" in out and "letters; 3 models" in out


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--subspace.task=[letters, letters]"], "error: task (--subspace.task) names letters twice. Name it once"),
        (["--subspace.task={letters: 0, arithmetic: 1}"], "error: subspace.task: the weight of letters is 0.0. Set it"),
        (
            ["--subspace.task={letters:1}"],
            "error: task='{letters:1}' (--subspace.task) cannot be read: a weight is a number",
        ),
        (["--subspace.task=[letters, arithmetik]"], "Unknown task 'arithmetik'. Did you mean 'arithmetic'?"),
        (["--subspace.task=[letters, humaneval]"], "Task 'humaneval' cannot be trained on"),
        (["--subspace.task=[letters, arithmetic]", "--data.num_prompts=1"], "num_prompts=1 leaves letters without a"),
        (["--subspace.task=[letters, arithmetic]", "--data.rows=reference"], "which has none of task 'arithmetic'"),
        (
            ["--subspace.task=[letters, arithmetic]", "--subspace.basis=other", "--subspace.basis_task=letters"],
            "basis=other needs a basis_task other than letters + arithmetic",
        ),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], typed: list[str], said: str
) -> None:
    given = [f"--subspace.model_name_or_path={tiny_model_dir}", f"--run_dir={tmp_path / 'run'}", "--evaluation.limit=2"]
    assert main(["fit", *given, "--evaluation.tasks=[letters]", *typed]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_equal_one(mix: Path, tiny_model_dir: str, tmp_path: Path, monkeypatch: Any) -> None:
    """To 1e-10 in the moments of each task, and byte for byte in the corpus."""
    monkeypatch.setattr(ddp, "OPTIONS", OPTIONS)
    options = ["--subspace.task=[letters, arithmetic]", "--trainer.devices=2", "--trainer.strategy=ddp"]
    table = ddp.ok(ddp.fit(tiny_model_dir, tmp_path / "two" / "run", *options, f"--check_against={mix}"))
    assert "BROKEN" not in table and "relative difference, worst site" in table and "lines that differ" in table
    assert (tmp_path / "two" / "run" / "corpus" / "generations.jsonl").read_bytes() == (
        mix / "corpus" / "generations.jsonl"
    ).read_bytes()
