"""Options that do nothing, in files and in the points of a sweep; those that are typed are in test_mistakes.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spd_lightning.cli.parser import make_parser
from spd_lightning.cli.program import main
from spd_lightning.cli.unused import stages_run, without_effect


@pytest.mark.parametrize(
    ("typed", "stages"),
    [
        ("fit", "extract generate fine_tune evaluate"),
        ("fit --data.method ssd", "generate fine_tune evaluate"),
        ("fit --data.method ssd --evaluation.methods [projected]", "extract generate fine_tune evaluate"),
        ("fit --data.method base", "evaluate"),
        ("fit --data.subspace s", "generate fine_tune evaluate"),
        ("generate --data.method ssd", "generate"),
        ("generate", "extract generate"),
        ("extract", "extract"),
        ("test", "evaluate"),
    ],
)
def test_what_a_command_runs(typed: str, stages: str) -> None:
    words = typed.split()
    options = make_parser().parse_args(words)[words[0]]
    assert stages_run(words[0], options) == set(stages.split())


def test_no_option_of_a_bare_fit_is_without_effect() -> None:
    """But those that only a validation, a program, a grid of decodings or another command reads."""
    parser = make_parser()
    options = parser.parse_args(["fit", "--data.val_fraction=0.1", "--evaluation.tasks=[functions]"]).fit
    idle = {name for name, _ in without_effect("fit", options, list(options.keys()))}
    assert idle == {
        *("subspace.task_file", "data_dir", "data.stop_eos", "evaluation.adapter"),
        *("evaluation.subspace", "evaluation.best_decoding_rows"),
        *("evaluation.when", "trainer.limit_test_batches", "trainer.limit_predict_batches", "trainer.inference_mode"),
        *("trainer.min_epochs", "trainer.min_steps", "trainer.sync_batchnorm", "trainer.use_distributed_sampler"),
        *("trainer.reload_dataloaders_every_n_epochs", "trainer.model_registry"),
        "template_date",
    }


@pytest.mark.parametrize(
    ("options", "name", "why"),
    [
        ("evaluation.tasks=[gsm8k]", "evaluation.num_samples", None),
        ("evaluation.tasks=[letters, custom:mine]", "evaluation.num_samples", None),
        ("evaluation.tasks=[letters]", "evaluation.num_samples", "none of the tasks that are scored draws its answers"),
        ("evaluation.tasks=[codealpaca]", "evaluation.top_p", "none of the tasks that are scored draws its answers"),
        ("evaluation.tasks=[mmlu]", "evaluation.prompt_format", "the tasks that are scored compare likelihoods, and "),
        ("evaluation.tasks=[codealpaca]", "evaluation.repetition_penalty", None),
        ("evaluation.tasks=[mmlu] evaluation.protocol=paper", "evaluation.num_samples", None),
        ("evaluation.tasks=[mmlu] evaluation.protocol=paper", "evaluation.prompt_format", None),
        ("", "evaluation.best_decoding_rows", "evaluation.best_decoding names no decoding to choose on them"),
        ("evaluation.best_decoding=[{temperature: 0}]", "evaluation.best_decoding_rows", None),
        ("data.temperature=0", "data.sampling_seed", "data.temperature 0 is greedy, and draws nothing"),
        ("", "data_dir", "no task here reads a data set"),
        ("subspace.task=custom", "data_dir", "no task here reads a data set"),
        ("evaluation.tasks=[letters, gsm8k]", "data_dir", None),
        ("subspace.basis=other subspace.basis_task=gsm8k", "data_dir", None),
        ("", "evaluation.allow_code_execution", "no task here runs programs"),
        ("evaluation.tasks=[custom:mine]", "evaluation.allow_code_execution", None),
        ("subspace.task=functions evaluation.tasks=[letters]", "evaluation.allow_code_execution", None),  # data.keep
    ],
)
def test_an_option_has_an_effect_where_something_reads_it(options: str, name: str, why: str | None) -> None:
    words = [f"--{word}" for word in re.findall(r"(?:[^ \[]|\[.*?\])+", options)]
    found = dict(without_effect("fit", make_parser().parse_args(["fit", *words]).fit, [name]))
    assert (name in found) is (why is not None) and found.get(name, "").startswith(why or "")


def test_a_student_without_named_tasks_is_scored_on_what_it_was_trained_on(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("subspace: {task: functions}\ndata: {method: spd}\n")
    names = ["evaluation.timeout_s", "evaluation.limit.functions"]
    for typed, idle in (("", []), ("--evaluation.tasks=[arithmetic]", names)):
        options = make_parser().parse_args(["test", f"--evaluation.adapter={tmp_path}/adapter", *typed.split()]).test
        assert [name for name, _ in without_effect("test", options, names)] == idle


def test_an_option_without_effect_in_a_file_is_listed_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Saved configurations, and arms under one switch, carry such options on purpose; a default asks for nothing."""
    file = tmp_path / "arm.yaml"
    file.write_text("data: {method: psr, top_p: 0.8, top_k: 0}\nsubspace: {rank: 4, center: true}\n")
    with caplog.at_level("INFO"), pytest.raises(SystemExit, match="0"):
        main(["fit", "--config", str(file), "--print_config"])
    told = [message for message in caplog.messages if message.startswith("Unused")]
    assert told == [
        "Unused: data.top_p (data.method psr samples without them)",
        "Unused: subspace.rank, subspace.center (fit with data.method psr runs no stage 1)",
    ]


def test_what_scripts_set_for_every_task_is_listed_where_it_is_typed_too(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"), pytest.raises(SystemExit, match="0"):
        main(["fit", "--data_dir=.", "--evaluation.allow_code_execution=true", "--print_config"])
    assert [message for message in caplog.messages if message.startswith("Unused")] == [
        "Unused: data_dir (no task here reads a data set)",
        "Unused: evaluation.allow_code_execution (no task here runs programs)",
    ]
    caplog.clear()
    with caplog.at_level("INFO"), pytest.raises(SystemExit, match="0"):
        main(["fit", "--data_dir=.", "--quiet", "--print_config"])
    assert not caplog.messages, "with --quiet, warnings and errors alone"


def test_the_points_of_a_sweep_count_as_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPD_SWEEP", "1")
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--data.method=psr", "--subspace.rank=4", "--print_config"])


def test_a_part_of_an_option_that_every_command_reads_is_read_too() -> None:
    """`--subspace.task_file.path`, `--subspace.task.letters`: refused by `test`, which scores that task by default."""
    words = ["test", "--subspace.task=custom", "--subspace.task_file.path=mine.jsonl"]
    options = make_parser().parse_args(words).test
    assert list(without_effect("test", options, ["subspace.task_file.path", "subspace.task.letters"])) == []
