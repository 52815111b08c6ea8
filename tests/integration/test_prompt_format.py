"""One prompt format, system prompt and solved examples in calibration, generation, training and scoring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spd_lightning.artifacts.files import read_jsonl
from spd_lightning.cli.program import main
from spd_lightning.errors import UserError
from spd_lightning.evaluation.portion import Way, ask
from spd_lightning.generation.questions import Questions
from spd_lightning.subspace.correctness import encode_examples
from spd_lightning.tasks import load_task
from tests.conftest import byte_tokenizer, tiny_model

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</{{ m.role }}>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
ROWS = [{"prompt": f"Q{i}? ", "target": f" a{i}", "split": "train" if i < 4 else "test"} for i in range(6)]
CHAT = "<system>Be brief.</system>\n<user>Q0?  a0\n\nQ{}?</user>\n<assistant>"


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "chat"
    tiny_model(max_position_embeddings=2048).save_pretrained(folder)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def task_file(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return {"path": str(path), "system_prompt": "Be brief.", "num_fewshot": 1, "score": "contains"}


def tokenizer() -> Any:
    found = byte_tokenizer()
    found.chat_template = TEMPLATE
    return found


def test_every_stage_puts_the_same_prompt(chat_model: str, task_file: dict[str, Any]) -> None:
    task = load_task("custom", task_file=task_file)
    train = task.examples("train")
    assert [e.id for e in train] == ["train/1", "train/2", "train/3"], "a solved row is asked nowhere"
    encoded, _ = encode_examples(tokenizer(), train, 999, prompt_format="chat", system=task.system_prompt)
    decode = tokenizer().decode
    assert decode(encoded[0].input_ids) == CHAT.format(1) + "a1"
    assert decode([t for t, in_s in zip(encoded[0].input_ids, encoded[0].correctness_mask) if in_s]) == "a1"
    asked = Questions(chat_model, "custom", task_file, prompt_format="chat")
    assert decode(asked.requests[0].prompt_ids) == CHAT.format(1)
    scored = ask(task.benchmark(), tokenizer(), 2048, Way(prompt_format="chat")).requests
    assert [decode(r.prompt_ids) for r in scored] == [CHAT.format(4), CHAT.format(5)]
    plain, _ = encode_examples(tokenizer(), train, 999, system=task.system_prompt)
    text = "Be brief.\n\nQ0?  a0\n\nQ1? "
    assert decode(plain[0].input_ids) == text + " a1"
    assert decode([t for t, in_s in zip(plain[0].input_ids, plain[0].correctness_mask) if in_s]) == " a1"
    assert decode(Questions(chat_model, "custom", task_file).requests[0].prompt_ids) == text


def test_spans_of_the_prompt_are_found_in_the_template(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"prompt": " What is it?", "target": " It is B.", "correct": [[1, 5], [19, 20]]}))
    examples = load_task("custom", task_file=str(path)).examples("train")
    encoded, _ = encode_examples(tokenizer(), examples, 999, prompt_format="chat")
    ids = encoded[0].input_ids
    assert tokenizer().decode(ids) == "<user>What is it?</user>\n<assistant>It is B."
    assert tokenizer().decode([t for t, in_s in zip(ids, encoded[0].correctness_mask) if in_s]) == "WhatB"


def test_a_template_that_changes_the_text_is_refused(task_file: dict[str, Any]) -> None:
    changing = byte_tokenizer()
    examples = load_task("custom", task_file=task_file).examples("train")
    with pytest.raises(UserError, match="the tokenizer has no chat template"):
        encode_examples(changing, examples, prompt_format="chat")
    changing.chat_template = TEMPLATE.replace("| trim", "| upper")
    with pytest.raises(UserError, match=r"does not write the text of example 'train/1' as it is"):
        encode_examples(changing, examples, prompt_format="chat")
    changing.chat_template = "{{ raise_exception('no system turn') }}"
    with pytest.raises(UserError, match=r"refuses turns of system, user: no system turn\. Leave system_prompt out"):
        encode_examples(changing, examples, prompt_format="chat", system="x")


def test_more_solved_examples_than_rows_are_refused(task_file: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"num_fewshot=4 leaves none of the 4 training rows"):
        load_task("custom", task_file={**task_file, "num_fewshot": 4})


def test_a_run_follows_data_and_says_where_stages_differ(
    chat_model: str, task_file: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    run = tmp_path / "runs" / "chat"
    args = [f"--subspace.model_name_or_path={chat_model}", "--subspace.task=custom", "--data.max_new_tokens=4"]
    args += [f"--subspace.task_file={json.dumps(task_file)}", "--trainer.accelerator=cpu", "--trainer.max_epochs=1"]
    args += ["--evaluation.tasks=[custom, letters]", "--evaluation.limit=2", "--data.prompt_format=chat"]
    args += ["--trainer.devices=1", "--trainer.enable_progress_bar=false", "--subspace.layers=[0]", "--subspace.rank=4"]
    with caplog.at_level("INFO"):
        assert main(["fit", *args, f"--run_dir={run}", "--data.min_completions=0"]) == 0
    assert "Prompt formats differ" not in caplog.text
    assert "Likelihoods are read on the plain text, not in the chat template: letters" in caplog.text
    results = json.loads((run / "results.json").read_text())
    assert results["benchmarks"]["custom.base"]["prompt_format"] == "chat"
    assert {s["metric"] for s in results["scores"] if s["task"] == "custom"} == {"accuracy"}
    moments = json.loads((run / "keys.json").read_text())["subspace"]["moments"]
    assert moments["prompt_format"] == "chat"
    assert len(list(read_jsonl(run / "corpus" / "generations.jsonl"))) == 3
    caplog.clear()
    with caplog.at_level("INFO"):
        names = ("--subspace.model", "--subspace.task", "--trainer.acc", "--trainer.dev", "--evaluation")
        again = ["test", *(a for a in args if a.startswith(names)), "--evaluation.prompt_format=plain"]
        assert main([*again, f"--evaluation.adapter={run / 'adapter'}", f"--run_dir={tmp_path / 'b'}"]) == 0
    assert "training chat (data.prompt_format), scoring plain (evaluation.prompt_format)" in caplog.text
