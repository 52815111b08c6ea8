"""Rows from a data folder and from a stand-in for the hub, and every way in which they can be wrong."""

from __future__ import annotations

import gzip
import json
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from spd_lightning.errors import UserError
from spd_lightning.tasks import load_task
from spd_lightning.tasks.sources import (
    BBH_TASKS,
    CARDS_READ,
    SOURCES,
    commits_taken,
    data_folder,
    fix_revisions,
    has_rows,
    load_rows,
)

COUNTS = {
    "gsm8k/train": 7473,
    "gsm8k/test": 1319,
    "humaneval/test": 164,
    "mbpp/full": 974,
    "mbpp/sanitized": 427,
    "svamp/all": 1000,
    "bbh/test": 6511,
    "codealpaca/train": 20022,
    "mmlu/test": 14042,
    "mmlu/dev": 285,
    "mmlu/validation": 1531,
}


def write(folder: Path, key: str, *rows: Any, packed: bool = False) -> str:
    path = folder / f"{key}.jsonl{'.gz' if packed else ''}"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return str(folder)


@pytest.mark.parametrize("key", COUNTS)
def test_real_files_have_the_published_number_of_rows(key: str, data_dir: str) -> None:
    assert len(load_rows(key, data_dir)) == COUNTS[key]


@pytest.mark.parametrize("packed", [False, True])
def test_rows_keep_order_and_text(tmp_path: Path, packed: bool) -> None:
    rows = [{"question": f"q{i}\u2028\x85 é", "answer": "#### 1"} for i in range(3)]
    assert load_rows("gsm8k/test", write(tmp_path, "gsm8k/test", *rows, packed=packed)) == rows


def test_environment_variable_names_the_folder_and_the_argument_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("SPD_DATA_DIR", str(tmp_path))
    assert data_folder(None) == tmp_path
    assert data_folder(str(other)) == other
    monkeypatch.delenv("SPD_DATA_DIR")
    assert data_folder(None) is None
    assert has_rows("mmlu/auxiliary_train", None)  # the hub is not asked


def test_folder_that_does_not_exist() -> None:
    with pytest.raises(UserError, match=r"data_dir='/no/such/place' is not a folder. Set --data_dir"):
        load_rows("gsm8k/test", "/no/such/place")


def test_folder_without_the_file(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"has no file gsm8k/test\.jsonl\.gz .*Set data_dir \(--data_dir, SPD_DATA_DIR\)"
    ):
        load_rows("gsm8k/test", str(tmp_path))
    assert not has_rows("gsm8k/test", str(tmp_path))


def test_malformed_line_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, "gsm8k/test", {"question": "q", "answer": "#### 1"}, "{oops")
    with pytest.raises(UserError, match=r"test\.jsonl, line 2: not valid JSON"):
        load_rows("gsm8k/test", folder)


def test_a_pointer_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, "gsm8k/test", "version https://git-lfs.github.com/spec/v1", "oid sha256:0", "size 1")
    with pytest.raises(UserError, match=r"test\.jsonl is a Git LFS pointer, not the file itself\. Put the whole file"):
        load_rows("gsm8k/test", folder)


def test_missing_field_is_named_with_its_row(tmp_path: Path) -> None:
    folder = write(tmp_path, "gsm8k/test", {"question": "q", "answer": "#### 1"}, {"question": "q"})
    with pytest.raises(UserError, match=r"test\.jsonl, line 2: the field 'answer' is missing. Needed: question, an"):
        load_rows("gsm8k/test", folder)


@pytest.mark.parametrize(
    ("answer", "message"), [(7, "is 7, but text is needed"), (None, "is None, but text"), (True, "is True, but text")]
)
def test_field_of_another_type(tmp_path: Path, answer: Any, message: str) -> None:
    folder = write(tmp_path, "gsm8k/test", {"question": "q", "answer": answer})
    with pytest.raises(UserError, match=rf"line 1: the field 'answer' {message}"):
        load_rows("gsm8k/test", folder)


def test_number_fields_do_not_take_true(tmp_path: Path) -> None:
    row = {"ID": "a", "Body": "b", "Question": "q", "Answer": True, "chilled_split": "test"}
    with pytest.raises(UserError, match="the field 'Answer' is True, but a whole number or a number is needed"):
        load_rows("svamp/all", write(tmp_path, "svamp/all", row))


WHOLE = gzip.compress(b'{"question": "q", "answer": "#### 1"}\n' * 500, mtime=0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (b"not gzip at all", r"test\.jsonl\.gz cannot be read as JSON Lines .*Put the whole file there again"),
        (WHOLE[:-12], r"test\.jsonl\.gz cannot be read as JSON Lines .*Put the whole file there again"),
        (gzip.compress(b"\xff\xfe"), r"test\.jsonl\.gz, line 1: not valid JSON .*Mend or remove that line"),
    ],
    ids=["text", "cut", "bytes"],
)
def test_damaged_file(tmp_path: Path, damage: bytes, message: str) -> None:
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.jsonl.gz").write_bytes(damage)
    with pytest.raises(UserError, match=message):
        load_rows("gsm8k/test", str(tmp_path))


GSM = {"question": "q", "answer": "#### 1"}
MMLU = {"question": "q", "choices": ["1", "2", "3", "4"], "answer": 1, "subject": "anatomy"}
MBPP = {"task_id": 1, "text": "t", "code": "c", "test_list": ["assert 1"], "test_setup_code": "", "split": "test"}
SANITIZED = {"task_id": 1, "prompt": "t", "code": "c", "test_imports": [], "test_list": ["assert 1"], "split": "test"}
HUMAN = {
    "task_id": "HumanEval/0",
    "prompt": "def f():\n",
    "entry_point": "f",
    "canonical_solution": "    return 1\n",
    "test": "def check(f):\n    assert f()\n",
}
SVAMP = {"ID": "a", "Body": "b", "Question": "q", "Answer": 3, "chilled_split": "test"}


@pytest.mark.parametrize(
    ("key", "good", "bad", "message"),
    [
        (
            "gsm8k/test",
            GSM,
            '{"question": "q", "answer": "#### NaN"}',
            "the answer ends in '#### NaN', but N must be one",
        ),
        ("gsm8k/train", GSM, '{"question": "q", "answer": "#### 1e400"}', "the answer ends in '#### 1e400', but"),
        ("gsm8k/train", GSM, {**GSM, "answer": "#### 3 or 4"}, "the answer ends in '#### 3 or 4', but"),
        ("gsm8k/train", GSM, {**GSM, "answer": "#### 1/0"}, "the answer ends in '#### 1/0', but"),
        ("gsm8k/train", GSM, {**GSM, "answer": "it is 18"}, "the answer does not end in '#### N'"),
        (
            "svamp/all",
            SVAMP,
            json.dumps(SVAMP).replace("3", "NaN"),
            "the field 'Answer' is nan, which no answer equals",
        ),
        ("svamp/all", SVAMP, json.dumps(SVAMP).replace("3", "1e400"), "the field 'Answer' is inf, which no answer"),
        ("svamp/all", SVAMP, json.dumps(SVAMP).replace("3", "-Infinity"), "the field 'Answer' is -inf, which no"),
        (
            "svamp/all",
            SVAMP,
            {**SVAMP, "Answer": 1e300},
            "the field 'Answer' is 1e\\+300, which ten digits do not hold",
        ),
        ("svamp/all", SVAMP, {**SVAMP, "Answer": 12345678901.5}, "which ten digits do not hold"),
        ("mmlu/test", MMLU, {**MMLU, "answer": 7}, "4 choices and the answer 7, but 4 choices"),
        ("mmlu/dev", MMLU, {**MMLU, "answer": -1}, "4 choices and the answer -1, but"),
        ("mmlu/test", MMLU, {**MMLU, "choices": ["1", 2, "3", "4"]}, "the field 'choices' is .* but a list of texts"),
        ("mmlu/auxiliary_train", MMLU, {**MMLU, "answer": 4}, "4 choices and the answer 4, which is none of them"),
        (
            "mmlu/test",
            MMLU,
            json.dumps({**MMLU, "answer": 9}).replace("9", "NaN"),
            "the field 'answer' is nan, but a whole",
        ),
        (
            "bbh/test",
            {"task": "t", "input": "i", "target": ") ]"},
            {"task": "t", "input": "i", "target": ' ".'},
            "says nothing",
        ),
        ("mbpp/full", MBPP, {**MBPP, "test_list": []}, "the field 'test_list' is \\[\\], but a list of assertions"),
        ("mbpp/full", MBPP, {**MBPP, "test_list": ["assert f("]}, "which is not Python"),
        ("mbpp/sanitized", SANITIZED, {**SANITIZED, "test_list": [3]}, "but a list of assertions is needed"),
        ("humaneval/test", HUMAN, {**HUMAN, "test": "assert f()"}, "no Python that defines check"),
        ("humaneval/test", HUMAN, {**HUMAN, "test": "def check(f:"}, "no Python that defines check"),
        ("humaneval/test", HUMAN, {**HUMAN, "entry_point": ""}, "the field 'entry_point' is ''"),
    ],
)
def test_a_gold_answer_that_nothing_could_match_is_refused(
    key: str, good: Any, bad: Any, message: str, tmp_path: Path
) -> None:
    folder = write(tmp_path, key, good, "", bad)
    with pytest.raises(UserError, match=rf"{key}\.jsonl, line 3: .*{message}"):
        load_rows(key, folder)
    assert load_rows(key, write(tmp_path, key, good)) == [good]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("#### $18", "18"), ("#### 18.", "18"), ("#### 1/2", "0.5"), ("#### 50%", "50"), ("#### 1e5", "100000")],
)
def test_gsm8k_answers_are_read_as_completions_are(answer: str, expected: str, tmp_path: Path) -> None:
    folder = write(tmp_path, "gsm8k/test", {"question": "q", "answer": f"so\n{answer}"})
    (example,) = load_task("gsm8k", folder).benchmark("paper").examples
    assert example.expected == expected
    (start, end), text = example.spans[0], example.prompt + example.target
    assert text[start:end] == answer.removeprefix("#### ").strip("$.%")


def test_hub_answer_that_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"ID": "chal-1", "Body": "b", "Question": "q", "Answer": "many"}
    fake_hub(monkeypatch, {(None, "test"): [row]})
    with pytest.raises(
        UserError, match=r"ChilleD/SVAMP \(svamp/all\), row 1: the field 'Answer' is 'many', but a whole"
    ):
        load_rows("svamp/all", None)


def fake_hub(
    monkeypatch: pytest.MonkeyPatch,
    rows: dict[tuple[str | None, str], list[dict[str, Any]]],
    revisions: list[str | None] | None = None,
    asked: list[Any] | None = None,
    offline: bool = False,
) -> list[Any]:
    """Put a stand-in for ``datasets.load_dataset`` in place; returns the calls it gets.

    The hub of it knows two commits, of which main is at the first; ``revisions`` takes those that were loaded,
    ``asked`` what the hub was asked.
    """
    calls = []
    revisions = [] if revisions is None else revisions
    asked = [] if asked is None else asked

    def load_dataset(name: str, config: str | None, split: str, revision: str | None) -> list[dict[str, Any]]:
        calls.append((name, config, split))
        revisions.append(revision)
        return rows.get((config, split), [])

    class Hub:
        def dataset_info(self, name: str, revision: str | None) -> Any:
            asked.append((name, revision))
            if offline:
                raise ConnectionError("no route")
            commit = revision if revision in ("a" * 40, "b" * 40) else "a" * 40
            return SimpleNamespace(sha=commit)

    monkeypatch.delenv("SPD_DATA_DIR", raising=False)
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    fix_revisions({})
    return calls


def test_hub_mbpp_joins_the_splits_and_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"task_id": 1, "text": "t", "code": "c", "test_list": ["assert c"], "test_setup_code": ""}
    calls = fake_hub(monkeypatch, {("full", "prompt"): [row], ("full", "train"): [{**row, "task_id": 601}]})
    found = load_rows("mbpp/full", None)
    assert [(r["task_id"], r["split"]) for r in found] == [(1, "prompt"), (601, "train")]
    splits = ("prompt", "test", "validation", "train")
    assert calls == [("google-research-datasets/mbpp", "full", split) for split in splits]


def test_hub_svamp_answers_become_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"ID": "chal-1", "Body": "b", "Question": "q", "Equation": "( 1 )", "Answer": "51.0", "Type": "Subtraction"}
    calls = fake_hub(monkeypatch, {(None, "test"): [row]})
    (found,) = load_rows("svamp/all", None)
    assert (found["Answer"], found["chilled_split"]) == (51.0, "test")
    assert [c[0] for c in calls] == ["ChilleD/SVAMP"] * 2


def test_hub_bbh_takes_the_task_from_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_hub(monkeypatch, {("snarks", "test"): [{"input": "i", "target": "(A)"}]})
    assert load_rows("bbh/test", None) == [{"task": "snarks", "input": "i", "target": "(A)"}]
    assert [c[1:] for c in calls] == [(task, "test") for task in BBH_TASKS]
    assert {c[0] for c in calls} == {"SaylorTwift/bbh"}, "the copy without a script, which datasets 4 loads"


def test_hub_mmlu_auxiliary_rows_may_be_nested(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"question": "q", "choices": ["1", "2", "3", "4"], "answer": 1, "subject": ""}
    fake_hub(monkeypatch, {("all", "auxiliary_train"): [row, {"train": row}]})
    assert load_rows("mmlu/auxiliary_train", None) == [row, row]


# What each data set's card, or code that loads it, names (`tasks/sources.py` says which): configs, splits, fields.
CARDS = {
    "openai/gsm8k": ({"main": "train test", "socratic": "train test"}, "question answer"),
    "openai/openai_humaneval": (
        {"openai_humaneval": "test"},
        "task_id prompt canonical_solution test entry_point",
    ),
    "google-research-datasets/mbpp": (
        {"full": "train test validation prompt", "sanitized": "train test validation prompt"},
        "task_id text prompt code source_file test_list test_imports test_setup_code challenge_test_list",
    ),
    "ChilleD/SVAMP": ({"default": "train test"}, "ID Body Question Equation Answer Type question_concat"),
    "SaylorTwift/bbh": (dict.fromkeys(BBH_TASKS, "test"), "input target"),
    "sahil2801/CodeAlpaca-20k": ({"default": "train"}, "instruction input output"),
    "cais/mmlu": ({"all": "test validation dev auxiliary_train"}, "question subject choices answer"),
}
ADDED = {"split", "chilled_split", "task"}  # by `Source.convert`


@pytest.mark.parametrize("key", SOURCES)
def test_sources_ask_for_what_the_cards_list(key: str) -> None:
    source = SOURCES[key]
    configs, fields = CARDS[source.hub_id]
    for config, split in source.parts:
        assert config in configs or (config is None and len(configs) == 1)
        assert split in configs[config or next(iter(configs))].split()
    assert source.fields.keys() - ADDED <= set(fields.split())
    assert date.fromisoformat(CARDS_READ) >= date(2026, 11, 26)


def test_a_data_set_is_taken_at_one_commit_which_is_said_and_known(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    row = {"question": "q", "answer": "#### 1"}
    revisions: list[str | None] = []
    asked: list[Any] = []
    fake_hub(monkeypatch, {("main", "train"): [row], ("main", "test"): [row]}, revisions, asked)
    with caplog.at_level("INFO"):
        for key in ("gsm8k/train", "gsm8k/test"):
            load_rows(key, None)
    assert revisions == ["a" * 40] * 2 and asked == [("openai/gsm8k", None)]
    assert commits_taken() == {"openai/gsm8k": "a" * 40}
    assert caplog.text.count("may move") == 1, "said once"
    caplog.clear()
    fix_revisions({"openai/gsm8k": "b" * 40})
    with caplog.at_level("INFO"):
        load_rows("gsm8k/test", None)
    assert revisions[-1] == "b" * 40 and commits_taken() == {"openai/gsm8k": "b" * 40}
    assert "may move" not in caplog.text, "a commit does not"
    with pytest.raises(UserError, match=r"Unknown data set in data_revision 'gsm8k'"):
        fix_revisions({"gsm8k": "main"})
    fix_revisions({})


def test_without_a_network_the_revision_is_taken_as_it_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"question": "q", "answer": "#### 1"}
    revisions: list[str | None] = []
    fake_hub(monkeypatch, {("main", "test"): [row]}, revisions, offline=True)
    load_rows("gsm8k/test", None)
    fix_revisions({"openai/gsm8k": "v1"})
    load_rows("gsm8k/test", None)
    fix_revisions({})
    assert revisions == [None, "v1"] and commits_taken() == {}


def test_hub_row_without_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, {("main", "test"): [{"question": "q"}]})
    with pytest.raises(UserError, match=r"openai/gsm8k \(gsm8k/test\), row 1: the field 'answer' is missing"):
        load_rows("gsm8k/test", None)


def test_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no route\nmore")

    monkeypatch.delenv("SPD_DATA_DIR", raising=False)
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(
        UserError, match=r"openai/gsm8k \(main, test\) is neither downloaded nor reachable: no route Set"
    ):
        load_rows("gsm8k/test", None)


def test_every_source_is_one_of_the_known_files() -> None:
    assert SOURCES.keys() == COUNTS.keys() | {"mmlu/auxiliary_train"}
