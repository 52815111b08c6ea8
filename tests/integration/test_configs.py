"""Every shipped configuration parses, and we know how many there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from spd_lightning.cli.parser import make_parser

CONFIGS = Path(__file__).parents[2] / "configs"
MAIN_TABLE = CONFIGS / "paper" / "main_table.yaml"  # a sweep over the others of its folder, see test_published.py
COMPLETE = sorted(p for p in CONFIGS.rglob("*.yaml") if p.parent.name not in ("sweeps", "trainer") and p != MAIN_TABLE)
OVERLAYS = sorted((CONFIGS / "trainer").glob("*.yaml"))


def test_all_were_found() -> None:
    assert len(COMPLETE) == 7 and len(OVERLAYS) == 4
    assert MAIN_TABLE.is_file() and len(list(CONFIGS.rglob("*.yaml"))) == 15


@pytest.mark.parametrize("path", COMPLETE, ids=lambda p: p.relative_to(CONFIGS).as_posix())
def test_parses_for_every_stage_command_and_overlay(path: Path) -> None:
    parser = make_parser()
    for command in ("fit", "extract", "generate", "test"):
        for overlay in (None, *OVERLAYS):
            files = ["--config", str(path), *(["--config", str(overlay)] if overlay else [])]
            options = parser.parse_args([command, *files, "--subspace.model_name_or_path=smollm2-135m-instruct"])
            section = options[command]
            assert section.data.model_name_or_path == section.model.model_name_or_path == "smollm2-135m-instruct"
            assert section.data.task == section.subspace.task and section.model.seed == 42


@pytest.mark.parametrize("path", COMPLETE, ids=lambda p: p.relative_to(CONFIGS).as_posix())
def test_starts_with_what_it_is_and_the_command(path: Path) -> None:
    head = path.read_text(encoding="utf-8").splitlines()[:6]
    assert head[0].startswith("# ")
    assert any(f"--config configs/{path.relative_to(CONFIGS).as_posix()}" in line for line in head)


@pytest.mark.parametrize("task", ["gsm8k", "mbpp", "mmlu"])
def test_paper_configurations_hold_the_published_settings(task: str) -> None:
    path = CONFIGS / "paper" / f"{task}.yaml"
    options = make_parser().parse_args(["fit", "--config", str(path)]).fit
    data, evaluation = options.data, options.evaluation
    assert (data.rows, options.subspace.rows, data.truncation, data.max_prompt_length) == (
        "reference",
        "reference",
        "end",
        384,
    )
    assert (data.temperature, data.top_p, data.top_k, data.repetition_penalty) == (0.7, 0.9, 20, 1.1)
    assert (data.max_new_tokens, data.num_generations, data.prompt_format, data.min_p) == (256, 1, "plain", 0.0)
    assert (data.keep, data.min_completions, data.val_fraction) == ("all", 0.0, 0.0), "used raw, empty ones too"
    assert (data.batch_size, data.dtype) == (64, "float32"), "64 is harmless where the corpus does not depend on it"
    assert (evaluation.protocol, evaluation.repetition_penalty) == ("paper", 1.1)
    assert options.subspace.span_rule == "contained" and options.subspace.max_length == 256
    assert options.subspace.num_examples == (500 if task == "mmlu" else 50)
    assert data.num_prompts == (2000 if task == "mmlu" else None)
    stated = path.read_text(encoding="utf-8")
    for deviation in ("padding is never counted", "no early stop", "batches of like length", "_script"):
        assert deviation in stated
