"""The published protocol, against a plain reading of it that shares no code with the package.

Everything expected here is made from the raw files by the few lines below: which rows, in which order, what the model
reads, which characters decide. 50 rows of each set are compared.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spd_lightning.cli.parser import make_parser
from spd_lightning.errors import UserError
from spd_lightning.finetuning.datamodule import SelfGenerationDataModule
from spd_lightning.subspace.correctness import encode_examples
from spd_lightning.subspace.module import SubspaceExtractionModule
from spd_lightning.tasks import TASKS, load_task
from spd_lightning.tasks.task import Example
from tests.conftest import byte_tokenizer

ROWS = 50
MAX_LENGTH = 256  # of a calibration text, tokens


def raw(data_dir: str, name: str) -> list[dict[str, Any]]:
    with gzip.open(Path(data_dir) / f"{name}.jsonl.gz", "rt", encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def options(row: dict[str, Any]) -> str:
    a, b, c, d = row["choices"]
    return f"{row['question']}\nA. {a}\nB. {b}\nC. {c}\nD. {d}"


def mbpp_prompt(text: str, tests: list[str]) -> str:
    return "Instruction: " + text + "\nYour code should pass these tests:\n" + "\n".join(tests) + "\nCode:"


# ---- what is scored: rows, order, prompts, limits ----


def scored(data_dir: str, name: str) -> list[str]:
    if name == "gsm8k":
        return [f"Question: {r['question']}\nAnswer:" for r in raw(data_dir, "gsm8k/test")[:100]]
    if name == "svamp":
        rows = [r for r in raw(data_dir, "svamp/all") if r["chilled_split"] == "test"][:100]
        return [f"Question: {r['Body']} {r['Question']}\nAnswer:" for r in rows]
    if name == "mbpp":
        rows = [r for r in raw(data_dir, "mbpp/sanitized") if r["split"] == "test"]
        return [mbpp_prompt(r["prompt"], r["test_list"]) for r in rows]
    if name == "mmlu":
        rows = raw(data_dir, "mmlu/test")
        chosen = np.random.default_rng(42).permutation(14042)[:200]
        return [f"Question: {options(rows[i])}\nAnswer:" for i in chosen]
    if name == "codealpaca":
        return [f"Instruction: {r['instruction']}\nCode:" for r in raw(data_dir, "codealpaca/train")[-100:]]
    rows = raw(data_dir, "bbh/test")
    found = []
    for task in (
        "logical_deduction_three_objects",
        "date_understanding",
        "movie_recommendation",
        "boolean_expressions",
        "causal_judgement",
        "sports_understanding",
    ):
        found += [f"{r['input']}\nAnswer:" for r in rows if r["task"] == task][:50]
    return found


# task: rows, new tokens, prompt tokens
SETS = {
    "gsm8k": (100, 256, 384),
    "svamp": (100, 256, 384),
    "mbpp": (257, 512, 1024),
    "mmlu": (200, 5, 512),
    "bbh": (300, 16, 1024),
    "codealpaca": (100, 256, 512),
}


@pytest.mark.parametrize("name", SETS)
def test_rows_order_prompts_and_limits_of_evaluation(name: str, data_dir: str) -> None:
    benchmark = load_task(name, data_dir).benchmark("paper")
    expected = scored(data_dir, name)
    spread = np.linspace(0, len(expected) - 1, ROWS).astype(int)  # from the first row to the last
    assert [benchmark.examples[i].full_prompt() for i in spread] == [expected[i] for i in spread]
    counts = (len(benchmark.examples), benchmark.max_new_tokens, benchmark.max_prompt_length)
    assert counts == SETS[name] and len(expected) == SETS[name][0]
    assert benchmark.stop == () and benchmark.num_fewshot == 0
    assert load_task(name, data_dir).benchmark("standard", 1).max_prompt_length is None


def test_codealpaca_prompts_without_an_input_are_the_plain_ones(data_dir: str) -> None:
    task = load_task("codealpaca", data_dir)
    pairs = zip(task.benchmark("paper").examples, task.benchmark("standard").examples, strict=True)
    assert sum(a.prompt == b.prompt for a, b in pairs) == 44


# ---- what is calibrated and trained on: rows, order, texts, S ----


def gsm8k_pair(row: dict[str, Any]) -> tuple[str, str, set[int]]:
    prompt = f"Question: {row['question']}\nAnswer:"
    text = f"{prompt} {row['answer']}"
    start = text.rindex("#### ") + len("#### ")
    return prompt, text, set(range(start, len(text)))


def mbpp_pair(row: dict[str, Any]) -> tuple[str, str, set[int]]:
    prompt = mbpp_prompt(row["text"], row["test_list"])
    at = prompt.index(":\n") + 2
    marked: set[int] = set()
    for test in row["test_list"]:
        marked |= set(range(at, at + len(test)))
        at += len(test) + 1
    return prompt, f"{prompt} {row['code']}", marked


def mmlu_pair(row: dict[str, Any]) -> tuple[str, str, set[int]]:
    prompt = f"Question: {options(row)}\nAnswer:"
    text = f"{prompt} {'ABCD'[row['answer']]}"
    return prompt, text, {len(text) - 2, len(text) - 1}


def training_rows(data_dir: str, name: str) -> list[tuple[str, str, set[int]]]:
    if name == "gsm8k":
        return [gsm8k_pair(row) for row in raw(data_dir, "gsm8k/train")]
    if name == "mbpp":
        rows = raw(data_dir, "mbpp/full")
        return [mbpp_pair(r) for split in ("train", "validation") for r in rows if r["split"] == split]
    return [mmlu_pair(row) for row in raw(data_dir, "mmlu/dev")]


def gluing_tokenizer(texts: list[str]) -> Any:
    """Byte pairs learned from the texts: single digits, words with the space before them, signs with a line end."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1000, initial_alphabet=alphabet, special_tokens=["<eos>"])
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<eos>")


@pytest.mark.parametrize(("name", "count"), [("gsm8k", 7473), ("mbpp", 464), ("mmlu", 285)])
def test_calibration_texts_masks_and_training_prompts(name: str, count: int, data_dir: str) -> None:
    examples = load_task(name, data_dir, rows="reference").examples("train")
    expected = training_rows(data_dir, name)
    assert len(examples) == len(expected) == count
    assert [e.prompt for e in examples] == [prompt for prompt, _, _ in expected]
    first, texts = examples[:ROWS], [text for _, text, _ in expected[:ROWS]]
    assert [e.prompt + e.target for e in first] == texts
    cut = 0
    for tokenizer in (byte_tokenizer(), gluing_tokenizer(texts)):
        encoded, _ = encode_examples(tokenizer, first, max_length=MAX_LENGTH, span_rule="contained")
        by_id = {e.id: e for e in encoded}
        for example, (_, text, marked) in zip(first, expected):
            tokens = tokenizer(text, return_offsets_mapping=True)
            places = [set(range(a, b)) for a, b in tokens["offset_mapping"]]
            inside = [t > 0 and bool(p) and p <= marked for t, p in enumerate(places)]
            if any(inside[:MAX_LENGTH]):
                assert by_id[example.id].input_ids == tuple(tokens["input_ids"][:MAX_LENGTH])
                assert by_id[example.id].correctness_mask == tuple(inside[:MAX_LENGTH])
            else:
                cut += 1
                assert example.id not in by_id
    assert cut < 2 * ROWS * 0.8, "S is compared, not only its absence"


def test_mbpp_reference_text_is_untouched(data_dir: str) -> None:
    def ends(e: Example) -> bool:
        text = e.prompt + e.target
        return any(text[a:b] != text[a:b].rstrip() for a, b in e.spans)

    reference = load_task("mbpp", data_dir, rows="reference").examples("train")
    assert sum("\r\n" in e.target for e in reference) == 463
    assert sum(ends(e) for e in reference) == 23
    ours = load_task("mbpp", data_dir).examples("train")
    assert not any("\r" in e.target or ends(e) for e in ours)
    assert [e.prompt for e in ours] == [e.prompt for e in reference]


def test_mmlu_auxiliary_rows_are_shuffled_as_datasets_does(tmp_path: Path) -> None:
    import datasets

    rows = [
        {"question": f"q{i}", "choices": [f"{i}{c}" for c in "wxyz"[: 3 if i % 7 == 3 else 4]], "answer": i % 3}
        for i in range(3000)
    ]
    (tmp_path / "mmlu").mkdir()
    lines = "".join(json.dumps({**row, "subject": ""}) + "\n" for row in rows)
    (tmp_path / "mmlu" / "auxiliary_train.jsonl").write_text(lines, encoding="utf-8")
    shuffled = datasets.Dataset.from_list(rows).shuffle(seed=42, keep_in_memory=True)
    wanted = [row for row in shuffled if len(row["choices"]) == 4][:2000]
    task = load_task("mmlu", str(tmp_path), rows="reference")
    found = task.examples("train")
    assert [e.prompt for e in found] == [f"Question: {options(row)}\nAnswer:" for row in wanted]
    assert task.train_split_name == "auxiliary_train" and len(found) == 2000
    assert [e.id for e in found] == [f"auxiliary_train/{row['question'][1:]}" for row in wanted]
    assert task.examples("train", 7) == found[:7]
    with pytest.raises(UserError, match=r"mmlu/auxiliary_train\.jsonl, row 4: 3 choices"):
        load_task("mmlu", str(tmp_path)).examples("train")


def test_validation_stands_in_without_the_rows_of_test(data_dir: str) -> None:
    def plain(row: dict[str, Any]) -> str:
        return " ".join(options(row).lower().split())

    tested = {plain(row) for row in raw(data_dir, "mmlu/test")}
    validation = [plain(row) for row in raw(data_dir, "mmlu/validation")]
    assert (len(validation), sum(row in tested for row in validation)) == (1531, 28), "docs/scoring.md says so"
    found = load_task("mmlu", data_dir).examples("train")
    assert len(found) == 1531 - 28 and not any(" ".join(e.meta["question"].lower().split()) in tested for e in found)


def test_mmlu_dev_stands_in(data_dir: str) -> None:
    assert load_task("mmlu", data_dir, rows="reference").train_split_name == "dev"
    assert load_task("mmlu", data_dir).train_split_name == "validation"


@pytest.mark.parametrize("name", sorted(TASKS.keys() - {"gsm8k", "mbpp", "mmlu"}))
def test_only_three_tasks_have_reference_rows(name: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "p", "target": "t"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=rf"has none of task '{name}' .*Set --data\.rows first"):
        load_task(name, task_file=str(file), rows="reference")
    with pytest.raises(UserError, match=r"rows='last' is not known\. Set --data\.rows to first or reference"):
        load_task(name, task_file=str(file), rows="last")  # type: ignore[arg-type]


def test_rows_are_one_option_and_part_of_every_key(data_dir: str, tiny_model_dir: str, tmp_path: Path) -> None:
    options = make_parser().parse_args(["fit", "--data.rows=reference", "--subspace.task=mbpp"]).fit
    assert options.subspace.rows == options.data.rows == "reference"
    for task in ("gsm8k", "mbpp"):  # equal prompts; in gsm8k the very same rows
        given: dict[str, Any] = {"model_name_or_path": tiny_model_dir, "task": task, "data_dir": data_dir}
        keys, texts = [], []
        for rows in ("first", "reference"):
            extraction = SubspaceExtractionModule(**given, num_examples=3, max_length=800, rows=rows)  # type: ignore[arg-type]
            data = SelfGenerationDataModule(**given, num_prompts=3, method="ssd", rows=rows)  # type: ignore[arg-type]
            keys.append((extraction.moments_keys(), data.recipe.key()))
            texts.append([e.prompt + e.target for e in extraction.examples])
            assert [e.prompt for e in data.recipe.questions.prompts] == [e.prompt for e in extraction.examples]
        assert keys[0][0] != keys[1][0] and keys[0][1] != keys[1][1]
        assert (texts[0] == texts[1]) == (task == "gsm8k")
