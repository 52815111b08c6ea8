"""Every mistake in what is typed or in a file of options: the whole message, and status 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from spd_lightning.cli.parser import command_names
from spd_lightning.cli.program import main

P = "python -m spd_lightning"
HELP = f"`{P} fit --help` lists all."
FILES = {
    "a.yaml": "data:\n  num_prompts: 3\n",
    "typo.yaml": "seed_everything: 42\ndata:\n  # few\n  num_promts: 3\nepochs: 3\n",
    "twice.yaml": "subspace:\n  rank: 4\ndata:\n  num_prompts: 3\nsubspace:\n  center: true\n",
    "key-twice.yaml": "evaluation:\n  limit: {letters: 3, letters: 4}\n",
    "value.yaml": "data:\n\n  num_prompts: many\n",
    "float.yaml": "data:\n  num_prompts: 1e3\n",
    "choice.yaml": "data: {method: sdp}\n",
    "linked.yaml": "model:\n  seed: 3\n",
    "section.yaml": "data:\nseed_everything: 3\n",
    "empty.yaml": "# nothing\n",
    "list.yaml": "- a\n",
    "syntax.yaml": "data: {num_prompts: [1\nseed_everything: 2\n",
    "environment.yaml": "data:\n  num_prompts: ${oc.env:NOPE}\n",
    "name.yaml": "data:\n  corpus_dir: ${subspace.tusk}\n",
    "binary.yaml": bytes(range(256)),
    "nested.yaml": "data: " + "[" * 5000,
    "itself.yaml": "data: &a {x: *a}\n",
    "aliases.yaml": "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{x: *a{i - 1}, y: *a{i - 1}}}\n" for i in range(1, 40)),
    "run/config.yaml": "seed_everything: 42\n",
    "other/notes.txt": "",
}

COMMANDS = ", ".join(command_names())
MISTAKES: dict[str, str] = {
    # what stands where
    "--config a.yaml fit": (
        f"--config stands before the command, and belongs behind it. Type `{P} fit --config a.yaml`."
    ),
    "fit a.yaml": (f"a.yaml stands alone. A configuration file is named by --config: `{P} fit --config a.yaml`."),
    "fit run": (
        f"run stands alone. The configuration of a run is named by --config: `{P} fit --config run/config.yaml`."
    ),
    "test runs/nope": (
        "runs/nope is not a run folder: it has no config.yaml. Give a folder that fit wrote; `python -m spd_lightning "
        "runs list` shows all."
    ),
    "fit --subspace.task_file.columns.prompt q --subspace.task_file.columns.target=a": (
        "--subspace.task_file.columns.prompt is a part of columns, which is given as a whole. Type "
        "--subspace.task_file.columns '{prompt: q, target: a}'."
    ),
    "fit --evaluation.limit {letters:3}": (
        "evaluation.limit='{letters:3}' lacks a space behind a colon. Set --evaluation.limit '{letters: 3}'."
    ),
    "fit --evaluation.best_decoding [{temperature:0}]": (
        "evaluation.best_decoding=\"[{'temperature:0': None}]\" lacks a space behind a colon. Set "
        "--evaluation.best_decoding '[{temperature: 0}]'."
    ),
    'fit --evaluation.limit {"letters":"s3://b"}': (
        "evaluation.limit=\"{'letters': 's3://b'}\" is not possible. Set --evaluation.limit to a whole number or null."
    ),
    "fit --data_revision abc": "data_revision='abc' is not possible. Set --data_revision to '{name: value}' or null.",
    "fit --data.stop=": "data.stop='' is not a list. Set --data.stop '[]'.",
    "fit gsm8k": (f"'gsm8k' belongs to no option. Options are typed as --section.option VALUE; {HELP}"),
    "fit --model X": (
        f"--model is a section, not an option. Did you mean --subspace.model_name_or_path X? `{P} fit --help model` "
        "lists it."
    ),
    "fit --data a.yaml": (
        f"--data is a section, not an option. Did you mean --config a.yaml? `{P} fit --help data` lists it."
    ),
    "fit --config run": ("--config run is a folder, not a file. Type --config run/config.yaml."),
    "fit --config other": ("--config other is a folder, not a file. It holds no config.yaml either. Give a YAML file."),
    "fit --config": (f"--config names no file. Type `{P} fit --config FILE`."),
    "fit --config nowhere.yaml": (
        "--config nowhere.yaml: there is no such file. Give a YAML file of options, a run's config.yaml, or a name "
        f"that `{P} configs list` shows."
    ),
    "fit --config gsm8": (
        "--config gsm8: there is no such file. Did you mean gsm8k? Give a YAML file of options, a run's config.yaml, "
        f"or a name that `{P} configs list` shows."
    ),
    "fit --evaluation.tasks [arithmetic, letters] --data.top_k 3": (
        "--evaluation.tasks is followed by several words, [arithmetic, letters]: the shell took it apart at the "
        "spaces. Quote the list: --evaluation.tasks '[arithmetic, letters]'."
    ),
    "fit --evaluation.tasks=[arithmetic, letters]": (
        "--evaluation.tasks is followed by several words, [arithmetic, letters]: the shell took it apart at the "
        "spaces. Quote the list: --evaluation.tasks='[arithmetic, letters]'."
    ),
    # names
    "eval": (f"Unknown command 'eval'. Did you mean test? Known: {COMMANDS}."),
    "train": (f"Unknown command 'train'. Did you mean fit? Known: {COMMANDS}."),
    "extarct": (f"Unknown command 'extarct'. Did you mean extract? Known: {COMMANDS}."),
    "fit --epochs 3": (f"Unknown option --epochs. Did you mean --trainer.max_epochs? {HELP}"),
    "fit --lr=3": (f"Unknown option --lr. Did you mean --model.learning_rate? {HELP}"),
    "fit --model.lr 3": (f"Unknown option --model.lr. Did you mean --model.learning_rate? {HELP}"),
    "fit --steps 3": (f"Unknown option --steps. Did you mean --trainer.max_steps? {HELP}"),
    "fit --rank 3": (f"Unknown option --rank. Did you mean --subspace.rank? {HELP}"),
    "fit --batch_size 3": (
        "Unknown option --batch_size. Did you mean --data.batch_size or --evaluation.batch_size or --model.batch_size? "
        f"{HELP}"
    ),
    "fit --data.num-prompts 3": f"Unknown option --data.num-prompts. Did you mean --data.num_prompts? {HELP}",
    "fit --data.task gsm8k": "--data.task follows --subspace.task and is not set by itself. Set --subspace.task.",
    "fit --zzz 3": (f"Unknown option --zzz. {HELP}"),
    "sample run --promt x": (
        f"Unknown option --promt. Did you mean --prompt or --prompts? `{P} sample --help` lists all."
    ),
    "runs rm a --task arithmetic": ("--task has no effect here: runs rm takes --runs_dir, --yes. Leave it out."),
    "artifacts list --older_than_days=3": (
        "--older_than_days has no effect here: artifacts list takes --artifact_dir. Leave it out."
    ),
    "configs list --out x": "--out has no effect here: configs list takes no option. Leave it out.",
    "doctor extra": f"'extra' is more than doctor takes. `{P} doctor --help` shows what it takes.",
    "verify run other": f"'other' is more than verify takes. `{P} verify --help` shows what it takes.",
    # values
    "fit --data.method": (f"--data.method has no value. Type --data.method VALUE; `{P} fit --help` says which."),
    "fit --data.num_prompts 1e3": (
        "data.num_prompts='1e3' is not written as a whole number. Set --data.num_prompts 1000."
    ),
    "fit --data.num_prompts 2.5": (
        "data.num_prompts='2.5' is not possible. Set --data.num_prompts to a whole number or null."
    ),
    "fit --seed_everything -1": "seed_everything=-1 is not possible. Set --seed_everything to 0 up to 4294967295.",
    "fit --trainer.precision fp16": (
        "trainer.precision='fp16' is not supported. Known: 32-true, bf16-mixed, bf16-true. Set --trainer.precision."
    ),
    "fit --trainer.strategy zero3": (
        "trainer.strategy='zero3' is not known. Did you mean fsdp? Known: auto (one process), ddp (several, each "
        "with a whole model), fsdp (several, the model of fine-tuning spread over them). Set --trainer.strategy."
    ),
    "fit --trainer.max_time 10s": (
        "trainer.max_time='10s' is not a time as DD:HH:MM:SS (days, hours, minutes, seconds). Set --trainer.max_time "
        "00:00:00:10."
    ),
    "fit --trainer.max_time 90min": (
        "trainer.max_time='90min' is not a time as DD:HH:MM:SS (days, hours, minutes, seconds). Set --trainer.max_time "
        "00:01:30:00."
    ),
    "fit --run_dir ${oc.env:NOPE}": (
        "run_dir asks for the environment variable NOPE, which is not set. Type `export NOPE=VALUE`, or write "
        "${oc.env:NOPE,DEFAULT}."
    ),
    # files
    "fit --config typo.yaml": (
        "typo.yaml, line 4: unknown option data.num_promts of fit. Did you mean data.num_prompts?\n"
        "typo.yaml, line 5: unknown option epochs of fit. Did you mean trainer.max_epochs?"
    ),
    "fit --config twice.yaml": (
        "twice.yaml, line 5: subspace stands here and at line 1 already, of which only one would count. Put all of it "
        "in one place."
    ),
    "fit --config key-twice.yaml": (
        "key-twice.yaml, line 2: evaluation.limit.letters stands here and at line 2 already, of which only one would "
        "count. Put all of it in one place."
    ),
    "fit --config value.yaml": (
        "value.yaml, line 3: data.num_prompts='many' is not possible. Set --data.num_prompts to a whole number or null."
    ),
    "fit --config float.yaml": (
        "float.yaml, line 2: data.num_prompts='1000.0' is not written as a whole number. Set --data.num_prompts 1000."
    ),
    "fit --config choice.yaml": (
        "choice.yaml, line 1: Unknown data.method 'sdp'. Did you mean 'ssd'? Known: base, filtered, psr, spd, ssd. Set "
        "--data.method."
    ),
    "fit --config linked.yaml": (
        "linked.yaml, line 2: model.seed follows seed_everything and is not set by itself. Set seed_everything."
    ),
    "fit --config section.yaml": (
        "section.yaml, line 1: data is a section. Write its options under it, `  option: value`, or leave it out."
    ),
    "fit --config empty.yaml": ("empty.yaml is empty. Give a YAML file of options, such as configs/demo.yaml."),
    "fit --config list.yaml": (
        "list.yaml, line 1: this is no mapping from options to values. Write `section:`, then `  option: value`."
    ),
    "fit --config syntax.yaml": (
        "syntax.yaml, line 2 is no YAML: expected ',' or ']', but got ':'. Mend that line; `section:`, then `  option: "
        "value`."
    ),
    "fit --config environment.yaml": (
        "environment.yaml, line 2: data.num_prompts asks for the environment variable NOPE, which is not set. Type "
        "`export NOPE=VALUE`, or write ${oc.env:NOPE,DEFAULT}."
    ),
    "fit --config binary.yaml": "binary.yaml is no text, so it is no configuration. Give a YAML file of options.",
    "fit --config nested.yaml": (
        "nested.yaml is nested too deep for a configuration. Write `section:`, then `  option: value`."
    ),
    "fit --config itself.yaml": (
        "itself.yaml is nested too deep for a configuration. Write `section:`, then `  option: value`."
    ),
    "fit --config aliases.yaml": (
        "aliases.yaml holds more than 10,000 options. Write `section:`, then `  option: value`."
    ),
    "fit --help dataa": (
        "--help dataa: there is no such section. Known: subspace, data, model, evaluation, trainer, fit."
    ),
    # options without an effect
    "fit --subspace.task_file a.jsonl": (
        "--subspace.task_file has no effect here: subspace.task is arithmetic, and no task is custom; add "
        "--subspace.task custom. Leave it out."
    ),
    "fit --evaluation.limit {gsm8k: 3}": (
        "--evaluation.limit.gsm8k has no effect here: gsm8k is not scored; evaluation.tasks are arithmetic. Leave it "
        "out."
    ),
    "fit --data.method psr --subspace.rank 4": (
        "--subspace.rank has no effect here: fit with data.method psr runs no stage 1. Leave it out."
    ),
    "fit --data.method base --model.lora_r 4": (
        "--model.lora_r has no effect here: fit with data.method base runs no stage 3. Leave it out."
    ),
    "extract --evaluation.tasks [letters]": (
        "--evaluation.tasks has no effect here: extract runs no stage 4. Leave it out."
    ),
    "fit --evaluation.adapter a": (
        "--evaluation.adapter has no effect here: fit scores the student that it trains; `test` scores another one. "
        "Leave it out."
    ),
    "fit --data.temperature 0 --data.sampling_seed 3": (
        "--data.sampling_seed has no effect here: data.temperature 0 is greedy, and draws nothing. Leave it out."
    ),
    "fit --trainer.min_epochs 3 --trainer.min_steps 9": (
        "--trainer.min_epochs has no effect here: neither a callback nor trainer.max_time would end the training "
        "earlier. Leave it out.\n--trainer.min_steps has no effect here: neither a callback nor trainer.max_time would "
        "end the training earlier. Leave it out."
    ),
    "fit --trainer.gradient_clip_val null --trainer.gradient_clip_algorithm value": (
        "--trainer.gradient_clip_algorithm has no effect here: trainer.gradient_clip_val clips nothing. Leave it out."
    ),
    "fit --trainer.sync_batchnorm true": (
        "--trainer.sync_batchnorm has no effect here: no model here has batch norm, texts are dealt to processes by "
        "their own loader, and nothing is uploaded. Leave it out."
    ),
    "generate --trainer.profiler simple": (
        "--trainer.profiler has no effect here: the command runs no stage 3. Leave it out."
    ),
    "extract --data.corpus_dir c": "--data.corpus_dir has no effect here: the command runs no stage 2. Leave it out.",
    "test --data.subspace s": (
        "--data.subspace has no effect here: `test` projects into --evaluation.subspace. Leave it out."
    ),
    "fit --template_date 2026-01-01": (
        "--template_date has no effect here: no prompt is put into a chat template; add --data.prompt_format chat. "
        "Leave it out."
    ),
    "fit --evaluation.tasks [letters,mmlu] --evaluation.temperature 0.7": (
        "--evaluation.temperature has no effect here: none of the tasks that are scored draws its answers. "
        "Leave it out."
    ),
    "fit --evaluation.tasks [letters] --evaluation.prompt_format chat": (
        "--evaluation.prompt_format has no effect here: the tasks that are scored compare likelihoods, and "
        "generate nothing. Leave it out."
    ),
    "fit --evaluation.best_decoding_rows 9": (
        "--evaluation.best_decoding_rows has no effect here: evaluation.best_decoding names no decoding to choose on "
        "them. Leave it out."
    ),
    "fit --data.method base --ckpt_path c": (
        "--ckpt_path has no effect here: fit with data.method base runs no stage 3. Leave it out."
    ),
    "test --evaluation.adapter a --ckpt_path c": (
        "--evaluation.adapter has no effect here: ckpt_path names the student that is scored. Leave it out."
    ),
    "test --evaluation.adapter a --evaluation.methods [base]": (
        "--evaluation.adapter has no effect here: the student is not scored; add it to --evaluation.methods. Leave it "
        "out."
    ),
    "fit --estimate --dry_run": "--dry_run has no effect here: --estimate runs nothing. Leave it out.",
    "fit --data.engine vllm --data.batch_size 8": (
        "--data.batch_size has no effect here: data.engine vllm forms its own batches. Leave it out."
    ),
    "fit --data.temperature 0 --data.top_k 3": (
        "--data.top_k has no effect here: data.temperature 0 is greedy, and draws nothing. Leave it out."
    ),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def words(line: str) -> list[str]:
    """What a shell without quotes makes of a line; braces stand for what was quoted."""
    head, brace, value = line.partition(" {")
    return [*head.split(), *([f"{{{value}"] if brace else [])]


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_told_in_full(
    line: str, files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert main(words(line)) == 2
    told = capsys.readouterr()
    assert told.err.removeprefix("error: ").rstrip("\n") == MISTAKES[line] and not told.out
    assert not (files / "runs").exists()


@pytest.mark.parametrize("before", [True, False])
def test_what_is_typed_beats_a_file_wherever_it_stands(before: bool, files: Path) -> None:
    """``--subspace.rank 4 --config demo.yaml`` was half."""
    file = files / "rank.yaml"
    file.write_text("subspace: {rank: half}\ndata: {num_prompts: 7}\n")
    typed, named = ["--subspace.rank", "4"], ["--config", str(file)]
    from spd_lightning.cli.program import SPDCLI

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SPDCLI, "instantiate_classes", lambda self: None)
        patch.setattr(SPDCLI, "_run_subcommand", lambda self, name: None)
        options = SPDCLI(["fit", *([*typed, *named] if before else [*named, *typed])]).config.fit
    assert (options.subspace.rank, options.data.num_prompts) == (4, 7)
