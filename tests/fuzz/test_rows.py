"""Rows of every data set, whole and damaged: told with file and line, or examples whose spans and gold answers hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_lightning.scoring.parts import split
from spd_lightning.scoring.verdicts import judge
from spd_lightning.tasks import load_task
from spd_lightning.tasks.coding import program
from spd_lightning.tasks.task import Benchmark, Example, Split, Task
from tests.fuzz.cases import cases, damaged, jsonl, result_of, some_changed, texts

MBPP = {"text": "Add.", "code": "def f(a):\r\n return a", "test_list": ["assert f(1) == 1"], "test_setup_code": ""}
SANITIZED = {"prompt": "Add.", "code": "def f(a): return a", "test_imports": [], "test_list": ["assert f(1) == 1 "]}
MMLU = {"question": "What?", "choices": ["a", "b", "c", "d"], "answer": 1, "subject": "anatomy"}
GSM8K = {"question": "How many?", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"}
HUMANEVAL = {
    **{"task_id": "HumanEval/0", "prompt": 'def f(a):\n    """Same."""\n', "entry_point": "f"},
    **{"canonical_solution": "    return a\n", "test": "def check(candidate):\n    assert candidate(1) == 1\n"},
}
SVAMP = {"ID": "chal-1", "Body": "Two dogs", "Question": "How many?", "Answer": 2.0, "chilled_split": "test"}
BBH = {"task": "boolean_expressions", "input": "not True is", "target": "False"}
ALPACA = {"instruction": "Print.", "input": "", "output": "print(1)"}

# Task: file -> rows around the one that is changed.
FILES: dict[str, dict[str, list[dict[str, Any]]]] = {
    "gsm8k": {"gsm8k/train": [GSM8K] * 6, "gsm8k/test": [GSM8K]},
    "svamp": {"svamp/all": [SVAMP, {**SVAMP, "chilled_split": "train"}]},
    "humaneval": {"humaneval/test": [HUMANEVAL]},
    "mbpp": {
        "mbpp/full": [
            *({**MBPP, "task_id": i, "split": "prompt"} for i in (2, 3, 4)),
            *({**MBPP, "task_id": 10 + i, "split": name} for i, name in enumerate(("train", "validation", "test"))),
        ],
        "mbpp/sanitized": [{**SANITIZED, "task_id": 5, "split": "test"}],
    },
    "mbpp_sanitized": {
        "mbpp/sanitized": [{**SANITIZED, "task_id": i, "split": "test" if i > 4 else "prompt"} for i in (2, 3, 4, 5)]
    },
    "codealpaca": {"codealpaca/train": [ALPACA] * 102},
    "mmlu": {f"mmlu/{name}": [MMLU] * 5 for name in ("test", "dev", "validation", "auxiliary_train")},
    "bbh": {"bbh/test": [BBH] * 5},
}


def check_example(task: Task, e: Example) -> None:
    """What every example must be, whatever its row said."""
    whole = e.prompt + e.target
    assert whole.encode() and e.expected.encode() is not None, "what is read can be written"
    assert all(0 <= start < end <= len(whole) for start, end in e.spans), e.spans
    if task.answer_type == "program":
        assert e.expected and program(e, e.target) and split(e.meta["program_prefix"], e.meta["program_suffix"])
    elif task.answer_type in ("number", "text", "letter") and e.target.strip():
        assert judge(e.expected, f"#### {e.expected}" if task.answer_type == "number" else e.expected, task.answer_type)


def read_all(name: str, data_dir: str | None = None, **options: Any) -> None:
    """Every example that a task gives of its rows, checked."""
    task = load_task(name, data_dir, **options)
    splits: tuple[Split, ...] = ("test",) if task.no_train else ("train", "test")
    for part in splits:
        for e in result_of(lambda part=part: task.examples(part)) or ():
            check_example(task, e)
    for protocol in ("standard", "paper"):
        found: Benchmark | None = result_of(lambda protocol=protocol: task.benchmark(protocol, 3))
        for e in found.examples if found else ():
            assert e.full_prompt() and e.target.strip()


@pytest.mark.parametrize("name", FILES)
def test_whole_rows_are_read(name: str, tmp_path: Path) -> None:
    write(tmp_path, name)
    task = load_task(name, str(tmp_path))
    assert task.examples("test") and task.benchmark("standard").examples and task.benchmark("paper").examples


def write(folder: Path, name: str) -> None:
    for file, rows in FILES[name].items():
        (folder / f"{file}.jsonl").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{file}.jsonl").write_bytes(jsonl(rows))


@pytest.mark.parametrize("name", FILES)
def test_damaged_rows(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp(name)
    write(folder, name)
    files = sorted(FILES[name])

    @cases(1800 // len(FILES))
    @given(st.data())
    def check(data: st.DataObject) -> None:
        file = data.draw(st.sampled_from(files))
        rows, path = list(FILES[name][file]), folder / f"{file}.jsonl"
        at = data.draw(st.integers(0, len(rows) - 1))
        rows[at] = data.draw(some_changed(rows[at]))
        path.write_bytes(jsonl(rows))
        try:
            result_of(lambda: read_all(name, str(folder)))
        finally:
            path.write_bytes(jsonl(FILES[name][file]))

    check()


@cases(300)
@given(damaged(jsonl([GSM8K] * 3)), texts)
def test_damaged_files(tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged-files"
    (folder / "gsm8k").mkdir(parents=True, exist_ok=True)
    (folder / "gsm8k" / "train.jsonl").write_bytes(jsonl([GSM8K] * 6))
    for file, other in (("test.jsonl", "test.jsonl.gz"), ("test.jsonl.gz", "test.jsonl")):
        (folder / "gsm8k" / other).unlink(missing_ok=True)
        (folder / "gsm8k" / file).write_bytes(data)
        result_of(lambda: read_all("gsm8k", str(folder)))
    if "\x00" not in name and name.isprintable():
        result_of(lambda: load_task(f"gsm8k:{name}", str(folder)))
        result_of(lambda: load_task(name, str(folder)).benchmark("standard", 1))
