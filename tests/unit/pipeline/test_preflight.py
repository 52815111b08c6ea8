"""What would end a stage is told before the first: with status 2, no weights read, and no folder left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers

from spd_lightning.cli.program import main
from spd_lightning.pipeline import fit, preflight
from spd_lightning.subspace.subspace import CapabilitySubspace
from tests.settings import in_file

MISTAKES = {
    "--model.lora_r 0": "lora_r=0 is not a rank. Set --model.lora_r to 1 or more, or null to train all weights.",
    "--model.lora_dropout 1": "lora_dropout=1.0 is not a probability below 1. Set --model.lora_dropout.",
    "--model.target_modules [q_prj]": (
        "target_modules: q_prj matches no linear layer of LlamaForCausalLM. Found: mlp.down_proj, mlp.gate_proj, "
        "mlp.up_proj, self_attn.k_proj, self_attn.o_proj, self_attn.q_proj, self_attn.v_proj. Set "
        "--model.target_modules to some of these."
    ),
    "--trainer.max_epochs 0": (
        "trainer.max_epochs=0 trains nothing, so the student would be the base. Set --trainer.max_epochs to 1 or more, "
        "or take the command generate, which ends before fine-tuning."
    ),
    "--trainer.limit_train_batches 0": (
        "trainer.limit_train_batches=0 trains nothing, so the student would be the base. Set "
        "--trainer.limit_train_batches to 1 or more, or take the command generate, which ends before fine-tuning."
    ),
    "--trainer.fast_dev_run true": (
        "trainer.fast_dev_run=True trains on a batch or a few, and the scores would stand as those of this run's "
        "student. Type --dry_run instead: every stage on two examples, in a folder of its own."
    ),
    "--ckpt_path .": "ckpt_path=.: that is a folder, not a file. Give a checkpoint that fit wrote.",
    "--model.lora_alpha 0": "lora_alpha=0 is too small. Set --model.lora_alpha to 1 or more.",
    "--model.warmup_epochs -1": "warmup_epochs=-1.0 is too small. Set --model.warmup_epochs to 0 or more.",
    "--trainer.max_epochs -3": (
        "trainer.max_epochs=-3 is not possible: `max_epochs` must be a non-negative integer or -1. You passed in -3. "
        "Set --trainer.max_epochs to another value, or leave it out."
    ),
    "--trainer.max_epochs null": (
        "trainer.max_epochs=null without trainer.max_steps is a training without an end, and the cosine schedule needs "
        "one. Set --trainer.max_epochs or --trainer.max_steps to 1 or more."
    ),
    "--trainer.max_time 00:00:00:00": (
        "trainer.max_time='00:00:00:00' is no time, so nothing would be trained. Set --trainer.max_time 00:01:00:00 "
        "for an hour, say, or leave it out."
    ),
    "--trainer.accumulate_grad_batches 0": (
        "trainer.accumulate_grad_batches=0 makes no step. Set --trainer.accumulate_grad_batches to 1 or more."
    ),
    "--trainer.gradient_clip_val -1": (
        "trainer.gradient_clip_val=-1 is no norm to clip at. Set --trainer.gradient_clip_val above 0, or to null for "
        "no clipping."
    ),
    "--trainer.barebones true": (
        "trainer.barebones=True switches off the log and the checkpoints that a run consists of. Leave "
        "--trainer.barebones out."
    ),
    "--trainer.limit_train_batches 1.5": (
        "trainer.limit_train_batches=1.5 is not possible: You have passed invalid value 1.5 for limit_train_batches, "
        "it has to be in [0.0, 1.0] or an int. Set --trainer.limit_train_batches to another value, or leave it out."
    ),
    "--trainer.limit_train_batches 0.1 --data.num_prompts 8": (
        "trainer.limit_train_batches=0.1 of the 2 batches of an epoch is none. Set --trainer.limit_train_batches to a "
        "number of batches, such as 1, or leave it out."
    ),
    "--trainer.val_check_interval 9 --data.num_prompts 8 --data.val_fraction 0.5": (
        "trainer.val_check_interval=9 is more than the 2 batches of an epoch. Set --trainer.val_check_interval to at "
        "most 2, or --trainer.check_val_every_n_epoch null to count over epochs."
    ),
    "--trainer.check_val_every_n_epoch 9 --data.num_prompts 8 --data.val_fraction 0.5": (
        "data.val_fraction=0.5 holds prompts out, and trainer.check_val_every_n_epoch=9 never validates on them "
        "(trainer.max_epochs is 5). Leave --trainer.check_val_every_n_epoch out, or set --data.val_fraction 0."
    ),
    "--trainer.callbacks.class_path lightning.pytorch.callbacks.EarlyStopping --trainer.callbacks.init_args.monitor "
    "val_loss --data.num_prompts 8": (
        "trainer.callbacks: EarlyStopping monitors 'val_loss', which the training does not log. Did you mean val/loss? "
        "val/loss needs --data.val_fraction. Known: train/loss, train/grad_norm, train/lr, train/tokens_per_second, "
        "train/padding_share, and eval/TASK/METRIC with --evaluation.every_n_epochs. Set its monitor to one of them."
    ),
    "--trainer.precision 16-mixed": (
        "trainer.precision='16-mixed' is not supported. Set --trainer.precision to 32-true, bf16-mixed, bf16-true."
    ),
    "--data.corpus_dir pyproject.toml": (
        f"data.corpus_dir=pyproject.toml cannot be used: {Path('pyproject.toml').absolute()} is no folder. Set "
        "--data.corpus_dir to another folder."
    ),
    "--data.num_generations 4 --data.temperature 0": (
        "num_generations=4 at temperature 0 is one completion 4 times. Set --data.temperature above 0, or "
        "--data.num_generations 1."
    ),
    "--dry_run --data.keep majority": (
        "keep=majority needs several samples a prompt, and num_generations=1. Set --data.num_generations 8."
    ),
    "--dry_run --data.method filtered --data.keep wrong": (
        "method=filtered is ssd with keep=correct, not wrong. Set --data.method ssd."
    ),
    "--dry_run --trainer.max_epochs 0": (
        "trainer.max_epochs=0 trains nothing, so the student would be the base. Set --trainer.max_epochs to 1 or more, "
        "or take the command generate, which ends before fine-tuning."
    ),
    "--trainer.precision 64-true": (
        "precision=64-true is not supported. Set --trainer.precision to 32-true, bf16-mixed, bf16-true."
    ),
    "--ckpt_path no.ckpt": "ckpt_path=no.ckpt: there is no such file. Give a checkpoint that fit wrote.",
    "--data.subspace no.safetensors": (
        "subspace=no.safetensors: there is no such file. Give a subspace.safetensors, or none."
    ),
    "--subspace.layers last": (
        "layers='last' is not known. Did you mean middle_last? Set --subspace.layers (middle_last, all, or a list such "
        "as '[0, -1]')."
    ),
    "--subspace.layers 1": (
        "layers='1' is not known. Set --subspace.layers '[1]' (middle_last, all, or a list such as '[0, -1]')."
    ),
    "--subspace.layers 0,1": (
        "layers='0,1' is not known. Set --subspace.layers '[0, 1]' (middle_last, all, or a list such as '[0, -1]')."
    ),
    "--subspace.rank energy:2": (
        "rank='energy:2': the share of the energy is above 0 and at most 1, found 2. Set --subspace.rank energy:0.95, "
        "half or an integer."
    ),
    "--evaluation.tasks [functions] --evaluation.allow_code_execution false": (
        "None of the tasks can be scored (functions). evaluation.allow_code_execution=false forbids to run programs. "
        "Set it to true, or leave these tasks out."
    ),
    "--model.target_modules []": (
        "target_modules: [] matches no linear layer of LlamaForCausalLM. Found: mlp.down_proj, mlp.gate_proj, "
        "mlp.up_proj, self_attn.k_proj, self_attn.o_proj, self_attn.q_proj, self_attn.v_proj. Set "
        "--model.target_modules to some of these."
    ),
}


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail where a weight would be read."""
    refuse = lambda *args, **kwargs: pytest.fail("weights were asked for")  # noqa: E731
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", refuse)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    yield


def told(model_dir: str, options: str, folder: Path, capsys: pytest.CaptureFixture[str], command: str = "fit") -> str:
    args = [
        command,
        *in_file(["--subspace.max_length=1024"]),
        f"--subspace.model_name_or_path={model_dir}",
        "--trainer.accelerator=cpu",
    ]
    assert main([*args, "--run_dir", str(folder / "run"), *options.split()]) == 2
    assert not (folder / "run").exists() and not list(folder.rglob("subspace.safetensors"))
    (line,) = capsys.readouterr().err.split("error: ")[1:]
    return line.rstrip("\n")


@pytest.mark.parametrize("options", MISTAKES)
def test_a_mistake_of_a_later_stage_is_told_before_the_first(
    options: str, tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(tiny_model_dir, options, tmp_path, capsys) == MISTAKES[options]


def test_everything_that_is_wrong_is_told_at_once(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    lines = told(tiny_model_dir, "--model.lora_r 0 --subspace.rank 17", tmp_path, capsys).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["WANDB_MODE=online,", "rank=17", "lora_r=0"]
    assert "Type `wandb login`, or set WANDB_MODE=offline or disabled." in lines[0]


def test_benchmarks_of_which_none_has_a_row_are_told_though_missing_ones_may_be_left_out(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "two.jsonl").write_text('{"prompt": "a", "target": "b"}\n' * 2)
    options = f"--evaluation.skip_missing_data true --subspace.task custom --subspace.task_file {tmp_path}/two.jsonl"
    assert told(tiny_model_dir, options, tmp_path, capsys) == (
        f"None of the tasks can be scored. {tmp_path}/two.jsonl has 2 rows and none of them is a test row. Give some "
        "rows `split: test`, or leave the field `split` out: of five such rows the last is a test row, the others "
        "train."
    )


def test_more_solved_examples_than_there_are_training_rows_are_told(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They were fewer without a word, under the name of the number asked for."""
    (tmp_path / "ten.jsonl").write_text('{"prompt": "a", "target": "b"}\n' * 10)
    options = f"--subspace.task custom --subspace.task_file {tmp_path}/ten.jsonl --evaluation.base_shots [3,9]"
    assert told(tiny_model_dir, options, tmp_path, capsys) == (
        "base_shots=9 asks for more solved examples than custom has training rows, 8. Set --evaluation.base_shots to "
        "at most 8."
    )


def test_a_disk_without_room_is_told(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    assert told(tiny_model_dir, "--data.num_prompts 2", tmp_path, capsys).endswith(
        f"and {tmp_path} has 1 KiB free. Free space, or set --run_dir and --artifact_dir to folders on another disk."
    )


def test_a_context_too_short_for_a_benchmark_is_told(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = tmp_path / "short"
    shutil.copytree(tiny_model_dir, short)
    config = json.loads((short / "config.json").read_text()) | {"max_position_embeddings": 40}
    (short / "config.json").write_text(json.dumps(config))
    line = told(str(short), "--evaluation.tasks [arithmetic]", tmp_path, capsys, "test")
    assert "arithmetic needs 64 new tokens, the model's context is 40." in line
    weights = list(tmp_path.rglob("*.safetensors"))
    assert weights == [short / "model.safetensors"]


def test_a_subspace_of_another_model_is_told(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "elsewhere" / "s.bin"
    file.parent.mkdir()
    basis, values = torch.eye(16)[:, :4], torch.ones(16)
    CapabilitySubspace({(0, "k"): basis}, {(0, "k"): values}, {"model": "other", "fingerprint": "f" * 64}).save(file)
    line = told(tiny_model_dir, f"--data.subspace {file}", tmp_path, capsys)
    assert line.startswith("The subspace belongs to other (fingerprint ffffffffffffffff), not to the model")


def test_a_projection_without_a_subspace_is_told_before_the_folder_is_taken(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--evaluation.methods [projected] --evaluation.tasks [letters] --evaluation.limit 2"
    said = told(tiny_model_dir, options, tmp_path, capsys, "test")
    assert said == "methods names projected, but there is no subspace. Set subspace (--evaluation.subspace) to a file."


@pytest.mark.parametrize(
    ("command", "methods"), [("test", "[student]"), ("test", "[]"), ("fit --data.method base", "[student]")]
)
def test_models_of_which_none_is_there_are_told_and_no_empty_report_is_written(
    command: str, methods: str, tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, _, more = command.partition(" ")
    options = f"{more} --evaluation.tasks [letters] --evaluation.methods {methods}"
    assert told(tiny_model_dir, options, tmp_path, capsys, command) == (
        f"methods={[] if methods == '[]' else ['student']} leaves nothing to score. Set methods (--evaluation.methods) "
        "to [base], say: a student is scored where one is trained, or named to `test` (--evaluation.adapter)."
    )


def test_a_student_that_is_named_is_asked_its_own_task_whatever_the_command_would_train(
    tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the configuration of a base run: the student stood under the name of the base, whose scores went."""
    made = tmp_path / "made"
    made.joinpath("adapter").mkdir(parents=True)
    made.joinpath("config.yaml").write_text("subspace: {task: letters}\ndata: {method: psr}\n")
    (tmp_path / "alone").mkdir()
    seen = []
    monkeypatch.setattr(fit, "test", lambda run, ckpt_path: seen.append(run.parts.benchmarks.suite.context))
    for adapter in (made / "adapter", tmp_path / "alone"):
        options = f"--data.method base --evaluation.methods [student] --evaluation.adapter {adapter}"
        args = [f"--subspace.model_name_or_path={tiny_model_dir}", "--trainer.accelerator=cpu", *options.split()]
        assert main(["test", *args, "--run_dir", str(tmp_path / "run")]) == 0
        shutil.rmtree(tmp_path / "run")
    assert [(known.trained_task, known.method) for known in seen] == [("letters", "psr"), ("arithmetic", "student")]
