"""One command from a config to a distilled, scored model: files, table, repetition, and the commands on its result."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from spd_lightning.artifacts.files import read_jsonl
from spd_lightning.cli.program import main
from spd_lightning.errors import UserError
from spd_lightning.evaluation import models
from spd_lightning.finetuning.student import student_copy
from spd_lightning.model import load as model_files
from spd_lightning.model.adapter_beside import LinearBeside, read_record
from spd_lightning.model.load import load_model
from spd_lightning.tasks import overlap
from tests.settings import in_file

SETTINGS = [
    "--subspace.task=arithmetic",
    "--subspace.num_examples=6",
    "--subspace.layers=[0, 1]",
    "--subspace.max_length=1024",  # a token is a byte here
    "--data.max_prompt_length=1024",
    "--model.max_length=1024",
    "--data.num_prompts=12",
    "--data.max_new_tokens=12",
    "--data.dtype=float32",
    "--data.batch_size=5",
    "--model.batch_size=4",
    "--model.learning_rate=0.001",
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
    "--trainer.enable_progress_bar=false",
    "--evaluation.tasks=[arithmetic, letters, functions]",
    "--evaluation.limit=7",
    "--evaluation.methods=[base, student, projected]",
    "--evaluation.allow_code_execution=true",
]

FILES = {
    "config.yaml",
    "environment.json",
    "manifest.json",
    "keys.json",
    "subspace/subspace.safetensors",
    "corpus/generations.jsonl",
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "results.json",
    "report.md",
    "report.html",
    "plots/differences.png",
    "plots/flips.png",
    "plots/time.png",
    "plots/spectrum.png",
    "plots/scores.png",
    "plots/moved.png",
    "plots/lengths.png",
    "plots/loss.png",
    "checkpoints/last.ckpt",
    "logs/metrics.csv",
    "logs/hparams.yaml",
    *{f"samples/{t}.{m}.jsonl" for t in ("arithmetic", "letters", "functions") for m in ("base", "spd", "projected")},
}


@pytest.fixture(scope="module")
def run_dir(tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        args = ["fit", f"--subspace.model_name_or_path={tiny_model_dir}", f"--run_dir={folder}", *in_file(SETTINGS)]
        assert main(args) == 0
    return folder


def test_every_stage_says_how_its_result_looks(run_dir: Path) -> None:
    rows = json.loads((run_dir / "results.json").read_text())["health"]
    scored = [f"evaluate {t}.{m}" for m in ("base", "projected", "spd") for t in ("arithmetic", "letters", "functions")]
    assert [row["stage"] for row in rows] == ["extract", "generate", "fine_tune", *scored]
    assert rows[1]["figures"]["completions"] == 12 and rows[1]["figures"]["cut"] > 0.5
    assert any("completions are cut at 12 tokens" in text for text in rows[1]["warnings"])
    page = (run_dir / "report.md").read_text()
    assert page.index("## What is out of order") < page.index("completions are cut at 12") < page.index("## Scores")


def test_a_run_writes_exactly_the_promised_files(run_dir: Path) -> None:
    written = {p.relative_to(run_dir).as_posix() for p in run_dir.rglob("*") if p.is_file()}
    assert written == FILES
    manifest = json.loads((run_dir / "manifest.json").read_text())
    outside = ("logs/", "checkpoints/", "manifest.json")
    assert set(manifest) == {n for n in FILES if not n.startswith(outside)} | {"logs/metrics.csv"}
    stages = {p.name.rsplit("-", 1)[0] for p in (run_dir.parent / ".artifacts").iterdir()}
    assert stages == {"moments", "subspace", "corpus", "student", "scores", "movement"}


def test_results_hold_every_method_with_n_and_interval(run_dir: Path) -> None:
    results = json.loads((run_dir / "results.json").read_text())
    assert results["schema"] == 2 and results["trained_on"] == "arithmetic" and results["method"] == "spd"
    seen = {(s["method"], s["task"], s["split"]) for s in results["scores"]}
    splits = {"arithmetic": "in", "letters": "out", "functions": "out"}
    assert {(m, t, s) for m in ("spd", "projected") for t, s in splits.items()} <= seen
    assert {t for m, t, _ in seen if m == "base"} == set(splits)
    for score in results["scores"]:
        assert score["n"] == 7
        assert score["ci95"][0] <= score["value"] <= score["ci95"][1]
    assert {c["test"] for c in results["comparisons"]} and all(c["n"] == 7 for c in results["comparisons"])
    assert [s["stage"] for s in results["stages"]] == ["extract", "generate", "fine_tune", "evaluate"]
    tier = json.loads((run_dir / "environment.json").read_text())["isolation"]
    kept_apart = {(s["task"], s["isolation"]) for s in results["scores"]}
    assert kept_apart == {("arithmetic", None), ("letters", None), ("functions", f"{tier['tier']} {tier['name']}")}
    assert {"set": "training prompts", "task": "arithmetic", "shared": 0, "of": 12} in results["overlap"]
    assert results["benchmarks"]["functions.base"]["isolation"] == f"{tier['tier']} {tier['name']}"


def test_the_corpus_is_described_in_results_report_and_log(run_dir: Path) -> None:
    results = json.loads((run_dir / "results.json").read_text())
    figures, shown = results["corpus"], results["corpus_samples"]
    assert figures["n"] == 12 and 0 <= figures["answered"] <= 1 and 0 < figures["distinct_2"] <= 1
    assert figures["prompts"] == {"prompts": 12, "truncated": 0, "rejected": 0, "requests": 12}
    assert figures["split"] == results["calibration"]["split"] == "train"
    records = {r["id"]: r for r in read_jsonl(run_dir / "corpus" / "generations.jsonl")}
    assert len(shown) == 4 and all(row["projected"] == records[row["id"]]["completion"] for row in shown)
    assert any(row["projected"] != row["base"] for row in shown)
    page = (run_dir / "report.md").read_text()
    for words in (
        "stopped by itself",
        "with an answer",
        "distinct pairs of tokens",
        "split of the prompts",
        "lengths.png",
    ):
        assert words in page, words
    assert "The same prompts without and with the projection" in page
    header = (run_dir / "logs" / "metrics.csv").read_text().splitlines()[0]
    assert {"corpus/tokens_mean", "corpus/stopped", "corpus/answered", "corpus/distinct_2"} <= set(header.split(","))


def test_results_and_report_say_whether_the_student_moved(run_dir: Path) -> None:
    moved = json.loads((run_dir / "results.json").read_text())["moved"]
    held_out, corpus = moved["held_out"], moved["corpus"]
    assert held_out["of"] == "answers of the student to arithmetic" and 0 < held_out["texts"] <= 7
    assert corpus["of"] == "12 completions that it was trained on" and corpus["texts"] == 12
    assert held_out["kl"] > 0 and corpus["student_loss"] < corpus["base_loss"], "three steps at 0.001 move a tiny model"
    assert corpus["tokens"] == sum(r["num_tokens"] for r in read_jsonl(run_dir / "corpus" / "generations.jsonl"))
    samples = {
        m: {r["id"]: r for r in read_jsonl(run_dir / "samples" / f"arithmetic.{m}.jsonl")} for m in ("base", "spd")
    }
    rows = {row["task"]: row for row in moved["answers"]}
    assert list(rows) == ["arithmetic", "letters", "functions"] and all(row["n"] == 7 for row in rows.values())
    changed = sum(samples["base"][i]["completion"] != r["completion"] for i, r in samples["spd"].items())
    assert rows["arithmetic"]["other_text"] == changed and rows["letters"]["other_text"] is None
    stopped = sum(r["finish_reason"] == "stop" for r in samples["spd"].values())
    assert rows["arithmetic"]["student"]["stopped"] == stopped / 7
    sites = [(site["layer"], site["side"]) for site in moved["subspace"]]
    assert sites == [(0, "k"), (0, "v"), (1, "k"), (1, "v")]
    assert all(0 <= site["overlap"] <= 1 and site["chance"] == 0.5 for site in moved["subspace"])
    page = (run_dir / "report.html").read_text()
    assert "Did the student move?" in page and "KL(student || base)" in page
    assert "plots/moved.png" in (run_dir / "report.md").read_text()


def test_scores_are_logged_at_the_step_of_the_model_they_belong_to(run_dir: Path) -> None:
    """12 texts in batches of 4 are 3 optimiser steps: the curve goes from the base at 0 to the student at 3."""
    with (run_dir / "logs" / "metrics.csv").open() as lines:
        rows = [row for row in csv.DictReader(lines) if row["eval/arithmetic/exact_match_flexible"]]
    assert {(row["step"], bool(row["eval_base/letters/acc"])) for row in rows} == {("0", True), ("3", False)}


def test_the_saved_config_repeats_the_run_and_skips_what_is_there(
    run_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    before = json.loads((run_dir / "manifest.json").read_text())
    assert main(["fit", "--config", str(run_dir / "config.yaml")]) == 0
    out = capsys.readouterr().out
    assert "spd" in out and "report.html" in out
    results = json.loads((run_dir / "results.json").read_text())
    assert all(stage["skipped"] for stage in results["stages"])
    after = json.loads((run_dir / "manifest.json").read_text())
    changed = {name for name in before if before[name] != after.get(name)}
    assert changed <= {"results.json", "report.md", "report.html", "plots/time.png"}  # the stages' seconds


@pytest.mark.parametrize("command", ["extract", "generate", "test"])
def test_every_stage_command_takes_the_saved_config(
    run_dir: Path, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert main([command, "--config", str(run_dir / "config.yaml")]) == 0
    assert str(run_dir) in capsys.readouterr().out


def test_the_command_test_scores_base_adapter_checkpoint_merged_and_projected(
    run_dir: Path, tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    merged = tmp_path / "merged"
    assert main(["export", str(run_dir), "--form", "merged", "--out", str(merged)]) == 0

    def scored(name: str, *options: str, model: str = tiny_model_dir) -> dict[str, list[dict[str, Any]]]:
        """Samples of each method, of a run folder of its own with a store of its own."""
        folder = tmp_path / name / "run"
        args = ["test", f"--subspace.model_name_or_path={model}", f"--run_dir={folder}", *in_file(SETTINGS)]
        assert main([*args, "--evaluation.tasks=[letters]", "--evaluation.methods=[base, student]", *options]) == 0
        names = {p.name.split(".")[1]: p for p in (folder / "samples").iterdir()}
        return {method: list(read_jsonl(path)) for method, path in names.items()}

    base, spd, projected = (
        list(read_jsonl(run_dir / f"samples/letters.{m}.jsonl")) for m in ("base", "spd", "projected")
    )
    assert base != spd != projected != base
    assert scored("base") == {"base": base}
    assert scored("adapter", f"--evaluation.adapter={run_dir / 'adapter'}") == {"base": base, "spd": spd}
    assert scored("checkpoint", f"--ckpt_path={run_dir / 'checkpoints' / 'last.ckpt'}") == {"base": base, "spd": spd}
    subspace = f"--evaluation.subspace={run_dir / 'subspace' / 'subspace.safetensors'}"
    assert scored("projected", subspace) == {"base": base, "projected": projected}
    (found,) = scored("merged", model=str(merged)).values()
    for one, other in zip(found, spd, strict=True):  # summed in another order than with the adapter beside the base
        assert one.pop("scores") == pytest.approx(other.pop("scores"), abs=1e-4)
    assert found == spd


def test_another_checkpoint_is_not_scored_as_the_student_of_a_run(
    run_dir: Path,
    tiny_model_dir: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    last, other, run = run_dir / "checkpoints" / "last.ckpt", tmp_path / "other.ckpt", tmp_path / "a" / "run"
    checkpoint = torch.load(last, weights_only=True)
    for value in checkpoint["state_dict"].values():
        value += 1
    torch.save(checkpoint, other)
    args = ["test", f"--subspace.model_name_or_path={tiny_model_dir}", f"--run_dir={run}", *in_file(SETTINGS)]
    args += ["--evaluation.tasks=[letters]", "--evaluation.methods=[student]"]
    assert main([*args, f"--ckpt_path={last}"]) == 0
    assert main([*args, f"--ckpt_path={last}"]) == 0, "the same one may be scored again"
    before = (run / "results.json").read_bytes()
    capsys.readouterr()
    assert main([*args, f"--ckpt_path={other}"]) == 2
    assert f"ckpt_path={other} holds another student" in capsys.readouterr().err
    assert (run / "results.json").read_bytes() == before and not (run / ".adapter-new").exists()
    assert main([*args, f"--ckpt_path={tmp_path / 'none.ckpt'}"]) == 2


@pytest.mark.parametrize("student", ["adapter", "checkpoints/last.ckpt", "elsewhere"])
def test_a_student_is_scored_as_what_its_own_run_trained(
    run_dir: Path, tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, student: str
) -> None:
    """Not as subspace.task, whose default says nothing of it; that counts for a folder outside a run alone."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    if student == "elsewhere":
        shutil.copytree(run_dir / "adapter", tmp_path / "elsewhere")
    path = tmp_path / student if student == "elsewhere" else run_dir / student
    option = "--ckpt_path" if path.suffix == ".ckpt" else "--evaluation.adapter"
    args = [
        "test",
        f"--subspace.model_name_or_path={tiny_model_dir}",
        f"--run_dir={tmp_path / 'a' / 'run'}",
        *in_file(SETTINGS),
    ]
    args += ["--subspace.task=letters", "--data.method=ssd", "--evaluation.methods=[student]", f"{option}={path}"]
    assert main([*args, "--evaluation.tasks=[arithmetic, letters]"]) == 0
    results = json.loads((tmp_path / "a" / "run" / "results.json").read_text())
    found = results["trained_on"], results["method"], {(s["task"], s["split"], s["method"]) for s in results["scores"]}
    if student == "elsewhere":
        assert found == ("letters", "ssd", {("arithmetic", "out", "ssd"), ("letters", "in", "ssd")})
    else:
        assert found == ("arithmetic", "spd", {("arithmetic", "in", "spd"), ("letters", "out", "spd")})


def test_another_configuration_is_refused_and_nothing_is_overwritten(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run_dir / "results.json").read_bytes()
    assert main(["fit", "--config", str(run_dir / "config.yaml"), "--subspace.rank=2"]) == 2
    assert "subspace.rank: 'half' there, 2 here" in capsys.readouterr().err
    assert (run_dir / "results.json").read_bytes() == before


def test_sample_shows_base_projected_and_student(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(run_dir), "--prompt", "Question: 1 + 1?\nAnswer:", "--max_new_tokens", "5"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines() if line.startswith("---")] == ["base", "projected", "student"]
    assert "The prompt is plain text, data.prompt_format: plain" in out
    with pytest.raises(SystemExit, match="0"):
        main(["sample", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "the user's turn of the chat template" in told and "no template" not in told


def test_report_of_two_runs_goes_where_it_is_told(run_dir: Path, tmp_path: Path) -> None:
    assert main(["report", str(run_dir), str(run_dir), "--out", str(tmp_path / "out")]) == 0
    assert {"results.json", "report.md", "report.html", "plots"} == {p.name for p in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize("form", ["adapter", "merged", "projected"])
def test_export_opens_in_plain_libraries(run_dir: Path, tiny_model_dir: str, tmp_path: Path, form: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / form
    assert main(["export", str(run_dir), "--form", form, "--out", str(out)]) == 0
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir if form == "adapter" else out)
    model = PeftModel.from_pretrained(base, out) if form == "adapter" else base
    ids = AutoTokenizer.from_pretrained(out)("1 + 1 =", return_tensors="pt")
    assert model(**ids).logits.isfinite().all()
    assert "spd_lightning" in (out / "README.md").read_text()
    assert main(["export", str(run_dir), "--form", form, "--out", str(out)]) == 2


def test_compare_and_artifacts(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subspace = str(run_dir / "subspace" / "subspace.safetensors")
    assert main(["compare", subspace, str(run_dir), "--plot", str(tmp_path / "overlap.png")]) == 0
    assert (tmp_path / "overlap.png").is_file()
    store = str(run_dir.parent / ".artifacts")
    capsys.readouterr()
    assert main(["artifacts", "list", "--artifact_dir", store]) == 0
    assert "moments" in capsys.readouterr().out


def test_further_benchmarks_are_added_to_a_run(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, before = tmp_path / "copy", json.loads((run_dir / "results.json").read_text())
    shutil.copytree(run_dir, run)
    logged = (run / "logs" / "metrics.csv").read_bytes()
    more = ["test", str(run), "--tasks", "[chains]", f"--artifact_dir={run_dir.parent / '.artifacts'}"]
    assert main([*more, "--evaluation.limit=2"]) == 0
    results = json.loads((run / "results.json").read_text())
    own = [s for s in results["scores"] if s["task"] != "chains"]
    order = ("task", "method", "metric")  # a first command writes its rows by method, whichever tests came before
    by_name, stood = (sorted(rows, key=lambda s: [s[k] for k in order]) for rows in (own, before["scores"]))
    assert by_name == stood
    added = {(s["method"], s["n"], s["split"]) for s in results["scores"] if s["task"] == "chains"}
    assert added == {(m, 2, "transfer") for m in ("base", "projected", "spd")}
    assert all(results[name] == before[name] for name in before if name in ("corpus", "calibration", "fingerprint"))
    assert results["stages"][:-1] == before["stages"] and results["stages"][-1]["stage"] == "evaluate + chains"
    assert (run / "config.yaml").read_bytes() == (run_dir / "config.yaml").read_bytes()
    assert (run / "logs" / "metrics.csv").read_bytes() == logged, "the losses of the training stay"
    assert "chains" in (run / "report.md").read_text() and "chains" in capsys.readouterr().out
    assert main(["contamination", str(run), "--limit=0"]) == 0
    assert "chains" in capsys.readouterr().out, "null takes those that the run scored"
    assert main(more) == 2, "scored already, on other rows"
    assert "chains is scored already in" in capsys.readouterr().err
    assert main(["test", str(run), "--tasks=[letters]", "--data.dtype=bfloat16"]) == 2
    assert "--data.dtype cannot be set here" in capsys.readouterr().err


def test_contamination_counts_shared_words_and_asks_the_base(
    run_dir: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    capsys.readouterr()
    assert main(["contamination", str(run_dir), "--tasks", "[letters, arithmetic]", "--limit", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["letters", "arithmetic"]
    assert re.fullmatch(r"letters +200 +0 of 200 +0 of 3 +0\.0%", lines[2])  # a random model knows nothing
    assert main(["contamination", str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err
    assert main(["contamination", str(run_dir), "--limit=-1"]) == 2
    assert "limit=-1 asks nothing" in capsys.readouterr().err


def test_config_yaml_holds_every_section(run_dir: Path) -> None:
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert {"seed_everything", "run_dir", "subspace", "data", "model", "evaluation", "trainer"} <= set(config)
    assert config["subspace"]["rank"] == "half" and "ckpt_path" not in config


def test_a_sweep_over_rank_extracts_once_and_over_lora_generates_once(
    run_dir: Path, tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    base = [
        "fit",
        f"--subspace.model_name_or_path={tiny_model_dir}",
        *in_file(SETTINGS),
        "--evaluation.tasks=[letters]",
    ]

    def stages(name: str, *options: str) -> dict[str, bool]:
        folder = run_dir.parent / name
        assert main([*base, f"--run_dir={folder}", *options]) == 0
        rows = json.loads((folder / "results.json").read_text())["stages"]
        return {row["stage"]: row["skipped"] for row in rows}

    assert stages("rank", "--subspace.rank=3") == {
        "extract": True,
        "generate": False,
        "fine_tune": False,
        "evaluate": False,
    }
    assert stages("lora", "--model.lora_r=2")["generate"] is True


def test_early_stopping_takes_the_best_checkpoint(
    run_dir: Path, tiny_model_dir: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a learning rate that spoils the model the held-out loss rises, so the best epoch is not the last."""
    import csv

    import torch
    from safetensors.torch import load_file

    monkeypatch.setenv("WANDB_MODE", "disabled")
    run = run_dir.parent / "early"
    overlay = Path(__file__).parents[2] / "configs" / "trainer" / "early_stopping.yaml"
    args = ["fit", "--config", str(overlay), f"--subspace.model_name_or_path={tiny_model_dir}", f"--run_dir={run}"]
    args += [*in_file(SETTINGS), "--evaluation.tasks=[letters]", "--model.learning_rate=4", "--model.warmup_epochs=0"]
    with caplog.at_level("INFO"):
        assert main([*args, "--trainer.max_epochs=9"]) == 0
    with (run / "logs" / "metrics.csv").open() as lines:
        losses = [float(row["val/loss"]) for row in csv.DictReader(lines) if row.get("val/loss")]
    best = losses.index(min(losses))
    assert best + 2 == len(losses) < 9, "patience 1: one epoch without a better loss ends it"
    kept, last = (
        torch.load(run / path, weights_only=True)["state_dict"]
        for path in ("logs/checkpoints/best.ckpt", "checkpoints/last.ckpt")
    )
    student = load_file(run / "adapter" / "adapter_model.safetensors")
    names = {n.removeprefix("model.").replace(".default.", "."): n for n in kept}
    assert student.keys() == names.keys()
    assert all(torch.equal(student[n], kept[names[n]]) for n in student)
    assert any(not torch.equal(student[n], last[names[n]]) for n in student)
    assert f"the best by val/loss ({min(losses):.4f})" in caplog.text


def test_a_second_round_starts_from_the_first_student(
    tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    run = tmp_path / "run"
    args = ["fit", f"--subspace.model_name_or_path={tiny_model_dir}", f"--run_dir={run}", *in_file(SETTINGS)]
    scored_on: list[str] = []

    def merge(name: str, *args: Any) -> Any:
        scored_on.append(name)
        model = student_copy(name, *args)
        assert model.dtype == torch.bfloat16 and any(isinstance(m, LinearBeside) for m in model.modules())
        return model

    monkeypatch.setattr(models, "student_copy", merge)
    args += ["--evaluation.tasks=[letters]", "--model.rounds=2", "--model.learning_rate=0.1", "--data.dtype=bfloat16"]
    assert main([*args, "--evaluation.every_n_steps=2"]) == 0
    second = run / "round-2"
    assert {tiny_model_dir, str(second / "base")} <= set(scored_on), "midway, each round's student on its own base"
    stages = [row["stage"] for row in json.loads((run / "results.json").read_text())["stages"]]
    assert stages == [
        "extract",
        "generate",
        "fine_tune",
        *(f"{s} (round 2)" for s in ("extract", "generate", "fine_tune")),
        "evaluate",
    ]
    assert {"base", "student", "adapter", "subspace", "corpus"} <= {p.name for p in second.iterdir()}
    for folder, count in (("base", 1), ("student", 2)):
        made_of = read_record(second / folder)
        assert made_of is not None and (made_of.base, len(made_of.adapters)) == (tiny_model_dir, count)
        assert load_model(str(second / folder), torch.float32, merged=True).dtype == torch.float32
    first_corpus, second_corpus = ((folder / "corpus" / "generations.jsonl").read_bytes() for folder in (run, second))
    assert first_corpus != second_corpus, "the second round's prompts were answered by the first student"
    assert main(["export", str(run), "--form", "merged", "--out", str(tmp_path / "out")]) == 0
    from safetensors.torch import load_file

    exported = load_file(tmp_path / "out" / "model.safetensors")
    student = load_file(second / "student" / "model.safetensors")
    assert all((exported[name] == student[name]).all() for name in student)

    scored = (run / "samples" / "letters.spd.jsonl").read_bytes()
    assert main(["test", "--config", str(run / "config.yaml")]) == 0
    assert (run / "samples" / "letters.spd.jsonl").read_bytes() == scored, "test scores the last round's student too"
    loaded: list[str] = []
    real = model_files.load_student

    def note(name: str, source: Path, *rest: Any) -> Any:
        loaded.append(source)
        model = real(name, source, *rest)
        assert any(isinstance(m, LinearBeside) for m in model.modules())
        return model

    monkeypatch.setattr(model_files, "load_student", note)
    assert main(["sample", str(run), "--prompt", "x", "--max_new_tokens", "2"]) == 0
    assert loaded == [second / "student"]

    counted: list[int] = []

    def shared(tests: Any, texts: Any) -> tuple[int, int]:
        counted.append(len(texts))
        return 0, len(tests)

    monkeypatch.setattr(overlap, "count_shared_ngrams", shared)
    assert main(["contamination", str(run), "--limit=0"]) == 0
    assert counted == [24], "both rounds' texts were trained on"

    for name in ("student/beside-2/adapter_model.safetensors", "student/beside.json", "base/model.safetensors"):
        before = (second / name).read_bytes()
        (second / name).write_bytes(before[:-9] + bytes(9))
        capsys.readouterr()
        assert main([*args, "--evaluation.every_n_steps=2"]) == 0
        part, _, file = name.partition("/")
        assert f"{second / part} is damaged ({file} was changed): it is written anew" in capsys.readouterr().err
        assert (second / name).read_bytes() == before

    moved = run.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert main(["export", "moved", "--form", "adapter", "--out", "adapter"]) == 0
    from peft import AutoPeftModelForCausalLM

    monkeypatch.chdir("/")
    base = str(moved / "round-2" / "base")
    assert f"from_pretrained({json.dumps(base)})" in (tmp_path / "adapter" / "README.md").read_text()
    assert (
        AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter").peft_config["default"].base_model_name_or_path
        == base
    )


@pytest.mark.parametrize("method", ["base", "ssd", "psr"])
def test_every_method_runs_under_the_same_switch(
    method: str, run_dir: Path, tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    folder = run_dir.parent / method
    args = ["fit", f"--subspace.model_name_or_path={tiny_model_dir}", f"--run_dir={folder}", *in_file(SETTINGS)]
    args += ["--evaluation.tasks=[letters]", "--evaluation.methods=[base, student]", f"--data.method={method}"]
    assert main(args) == 0
    results = json.loads((folder / "results.json").read_text())
    assert {s["method"] for s in results["scores"]} == {"base", method}
    assert (folder / "adapter").is_dir() == (method != "base")
    assert not (folder / "subspace").exists(), "only spd projects"
    assert results["trained_on"] == (None if method == "base" else "arithmetic")


def test_filtered_keeps_what_the_gold_answer_agrees_with_or_says_that_nothing_is_left(
    run_dir: Path, tiny_model_dir: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    args = ["fit", f"--subspace.model_name_or_path={tiny_model_dir}", f"--run_dir={run_dir.parent / 'filtered'}"]
    assert (
        main(
            [
                *args,
                *in_file(SETTINGS),
                "--evaluation.tasks=[letters]",
                "--evaluation.methods=[base]",
                "--data.method=filtered",
            ]
        )
        == 2
    )
    assert "0 of 12" in capsys.readouterr().err


def test_filtered_trains_on_what_agrees_and_says_so_also_when_repeated(
    tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second completion is taken for right, since a random model never is."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr("spd_lightning.finetuning.keep.correct_completions", lambda *_: [True, False] * 6)
    args = ["fit", f"--subspace.model_name_or_path={tiny_model_dir}", f"--run_dir={tmp_path / 'run'}"]
    args += [*in_file(SETTINGS)]
    args += ["--evaluation.tasks=[letters]", "--evaluation.methods=[base, student]", "--data.method=filtered"]
    for skipped in (False, True):
        assert main(args) == 0
        results = json.loads((tmp_path / "run" / "results.json").read_text())
        assert {row["stage"]: row["skipped"] for row in results["stages"]}["fine_tune"] is skipped
        assert results["corpus"]["kept"] == {"rule": "correct", "kept": 6, "of": 12}
        assert results["corpus"]["texts"] == {"texts": 6, "empty": 0}
        page = (tmp_path / "run" / "report.md").read_text()
        assert "filtered kept only completions that the gold answer agrees with" in page
        assert "6 of 12" in page


def test_a_subspace_file_serves_the_first_round_alone(
    run_dir: Path, tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told at once, not after the first round."""
    subspace = f"--data.subspace={run_dir / 'subspace' / 'subspace.safetensors'}"
    args = [
        "fit",
        f"--subspace.model_name_or_path={tiny_model_dir}",
        f"--run_dir={tmp_path / 'run'}",
        *in_file(SETTINGS),
    ]
    assert main([*args, subspace, "--model.rounds=2"]) == 2
    assert "Leave --data.subspace out, or set --model.rounds 1." in capsys.readouterr().err


def test_a_mistake_amid_a_later_round_leaves_the_run_as_it_stands(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told as it is, and the folder that is given back or keeps its notes is the run's, not the round's."""

    def full(*args: Any) -> None:
        raise UserError("Cannot write the student: No space left on device.")

    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr("spd_lightning.pipeline.fit.write_merged", full)
    monkeypatch.setattr("spd_lightning.pipeline.holding.commits_taken", lambda: {"openai/gsm8k": "c" * 40})
    run = tmp_path / "run"
    args = ["fit", f"--subspace.model_name_or_path={tiny_model_dir}", f"--run_dir={run}", *in_file(SETTINGS)]
    assert main([*args, "--model.rounds=2"]) == 2
    assert "error: Cannot write the student: No space left on device." in capsys.readouterr().err
    assert not (run / "round-2").exists() and (run / "config.yaml").is_file() and (run / "adapter").is_dir()
    environment = json.loads((run / "environment.json").read_text())
    assert environment["revisions"] == {"data": {"openai/gsm8k": "c" * 40}}
