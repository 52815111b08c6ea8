"""Programs: HumanEval, MBPP (full and sanitized) and CodeAlpaca, and how a completion becomes a program to run.

Reference: arXiv:2605.22675, prompts and sizes; HumanEval is arXiv:2107.03374, MBPP is arXiv:2108.07732.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, ClassVar

from spd_lightning.errors import UserError
from spd_lightning.tasks.sources import load_rows
from spd_lightning.tasks.task import Example, Split, Task

MBPP_INTRO = "You are an expert Python programmer, and here is your task:"
NO_INPUT = ("noinput", "noinputn", "nopinput", "none")


def program_meta(prefix: str, suffix: str, continues: bool = False) -> dict[str, Any]:
    """The entries of `Example.meta` that `program` reads.

    Args:
        prefix: Code before the completion: the prompt that it continues, or imports.
        suffix: Code after the completion: set-up and tests.
        continues: Whether the completion goes on in the middle of a function, so that its indentation counts.
    """
    return {"program_prefix": prefix, "program_suffix": suffix, "continues": continues}


def solution(example: Example, completion: str) -> str:
    """The program that a completion is, without tests.

    Args:
        example: An example of a task with ``answer_type`` program.
        completion: Clean code; taking it out of a fenced block is the caller's part. White space around code that
            stands for itself is dropped, since targets begin with a space.
    """
    return example.meta["program_prefix"] + (completion if example.meta["continues"] else completion.strip())


def program(example: Example, completion: str) -> str:
    """`solution` and tests as one text: right, as the benchmarks define it, if its last statement is reached."""
    return f"{solution(example, completion)}\n{example.meta['program_suffix']}\n"


def spans_of(lines: list[str], prompt: str, strip: bool = True) -> tuple[tuple[int, int], ...]:
    """Where each of ``lines`` stands in ``prompt`` (in this order), without white space around it unless told.

    >>> spans_of(["assert f(1)"], "Tests:\\nassert f(1)\\nCode:")
    ((7, 18),)
    """
    spans, start = [], 0
    for line in (line.strip() if strip else line for line in lines):
        start = prompt.index(line, start)
        spans.append((start, start + len(line)))
        start += len(line)
    return tuple(spans)


def instruction_prompt(text: str, tests: list[str]) -> str:
    """The published code prompt, up to and including ``Code:``."""
    return f"Instruction: {text}\nYour code should pass these tests:\n" + "\n".join(tests) + "\nCode:"


class HumanEval(Task):
    """164 functions to complete from signature and docstring; for evaluation only.

    Both protocols: the raw prompt, zero-shot, the field's stop strings (standard alone), the data's own check.
    """

    name = "humaneval"
    domain = "code"
    answer_type = "program"
    max_new_tokens = 1024
    paper_max_new_tokens = 512
    stop = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
    no_train = "HumanEval has no training split, only its 164 test problems."

    def docs(self, split: Split, limit: int | None = None) -> list[dict[str, Any]]:
        return [{**row, "id": row["task_id"]} for row in load_rows("humaneval/test", self.data_dir)]

    def doc_to_text(self, doc: dict[str, Any]) -> str:
        return doc["prompt"]

    def doc_to_target(self, doc: dict[str, Any]) -> str:
        return doc["canonical_solution"]

    def doc_to_expected(self, doc: dict[str, Any]) -> str:
        return doc["test"]

    def doc_to_meta(self, doc: dict[str, Any]) -> dict[str, Any]:
        suffix = f"{doc['test']}\ncheck({doc['entry_point']})"
        return {**program_meta(doc["prompt"], suffix, continues=True), "entry_point": doc["entry_point"]}


class MBPP(Task):
    """Short Python functions from one sentence and three tests (974 tasks).

    Training: train, then validation rows (464). Standard: the 500 test rows of ``full``, 3-shot with tasks 2, 3 and 4
    between ``[BEGIN]`` and ``[DONE]``. Paper: the 257 test rows of the sanitized file, zero-shot, prompts cut at 1,024
    tokens, 512 new ones. Correctness is defined by the assert lines, which stand in the prompt.

    Reference rows are the same 464, their text untouched: code with its own line ends (``\\r\\n`` in 463) and outer
    white space, and S with the white space that ends an assert line (23 rows).
    """

    name = "mbpp"
    domain = "code"
    answer_type = "program"
    max_new_tokens = 512
    paper_max_new_tokens = 512
    paper_max_prompt_length = 1024
    in_script = True
    has_reference_rows = True
    stop = ("[DONE]",)
    num_fewshot = 3
    train_split_name = "train+validation"
    source: ClassVar[str] = "mbpp/full"

    def rows(self, source: str, *splits: str) -> list[dict[str, Any]]:
        """The rows of some splits in one shape: ``text``, ``code``, ``imports``, ``setup`` and ``tests``."""
        rows = load_rows(source, self.data_dir)
        return [
            {
                "id": row["task_id"],
                "text": row["text"] if source == "mbpp/full" else row["prompt"],
                "code": row["code"] if self.reference else row["code"].replace("\r\n", "\n").strip(),
                "imports": "".join(f"{line}\n" for line in row.get("test_imports", [])),
                "setup": row.get("test_setup_code", "").replace("\r\n", "\n"),
                "tests": row["test_list"],
            }
            for split in splits
            for row in rows
            if row["split"] == split
        ]

    def docs(self, split: Split, limit: int | None = None) -> list[dict[str, Any]]:
        return self.rows(self.source, *(("train", "validation") if split == "train" else ("test",)))

    def doc_to_question(self, doc: dict[str, Any]) -> str:
        return doc["text"]

    def doc_to_text(self, doc: dict[str, Any]) -> str:
        return instruction_prompt(doc["text"], doc["tests"])

    def doc_to_target(self, doc: dict[str, Any]) -> str:
        return f" {doc['code']}"

    def doc_to_expected(self, doc: dict[str, Any]) -> str:
        return "\n".join(doc["tests"])

    def doc_to_spans(self, doc: dict[str, Any], prompt: str, target: str) -> tuple[tuple[int, int], ...]:
        return spans_of(doc["tests"], prompt, strip=not self.reference)

    def doc_to_meta(self, doc: dict[str, Any]) -> dict[str, Any]:
        # the set-up of two tasks uses classes that the answer defines, so it follows the completion
        suffix = "\n".join([doc["setup"], *doc["tests"]])
        return program_meta(doc["imports"], suffix)

    def standard_examples(self, limit: int | None) -> list[Example]:
        def prompt(doc: dict[str, Any]) -> str:
            return f"{MBPP_INTRO} {doc['text']} Your code should pass these tests:\n\n" + "\n".join(doc["tests"]) + "\n"

        by_id = {doc["id"]: doc for doc in self.rows(self.source, "prompt")}
        missing = {2, 3, 4} - by_id.keys()
        if missing:
            raise UserError(
                f"{self.source}: the few-shot tasks {sorted(missing)} are missing among its prompt rows. "
                "Set data_dir (--data_dir) to a folder that holds the whole file."
            )
        shots = tuple(f"{prompt(doc)}[BEGIN]\n{doc['code']}\n[DONE]\n\n" for doc in (by_id[2], by_id[3], by_id[4]))
        docs = self.docs("test")[:limit]
        plain = [self.example(doc, "test", row) for row, doc in enumerate(docs)]
        return [
            replace(e, prompt=f"{prompt(doc)}[BEGIN]\n", target=f"{doc['code']}\n", spans=(), shots=shots)
            for e, doc in zip(plain, docs, strict=True)
        ]

    def paper_examples(self, limit: int | None) -> list[Example]:
        docs = self.rows("mbpp/sanitized", "test")[:limit]
        return [self.example(doc, "test", row) for row, doc in enumerate(docs)]


class MBPPSanitized(MBPP):
    """The 427 MBPP tasks that were checked by hand: 163 for training (train, validation), 257 test rows.

    Standard: 3-shot as `MBPP`; paper: its published evaluation set.
    """

    name = "mbpp_sanitized"
    source = "mbpp/sanitized"
    has_reference_rows = False


class CodeAlpaca(Task):
    """20,022 instructions with code as output, in many languages; scored by likelihood and by whether it parses.

    Both protocols score the last 100 rows; the rest is for training. Rows with an empty output cannot be scored: they
    are dropped and counted. A marker for "no input" counts as no input. Paper: the instruction without its input, cut
    at 512 tokens.
    """

    name = "codealpaca"
    domain = "code"
    answer_type = "likelihood"
    output_type = "target_nll"
    version = 2
    paper_max_prompt_length = 512
    stop = ("\nInstruction:",)
    num_test: ClassVar[int] = 100

    def docs(self, split: Split, limit: int | None = None) -> list[dict[str, Any]]:
        rows = load_rows("codealpaca/train", self.data_dir)
        return rows[-self.num_test :] if split == "test" else rows[: -self.num_test]

    def doc_to_question(self, doc: dict[str, Any]) -> str:
        given = doc["input"].strip()
        absent = re.sub("[^a-z]", "", given.lower()) in NO_INPUT or not given
        return doc["instruction"] + ("" if absent else f"\nInput: {given}")

    def doc_to_text(self, doc: dict[str, Any]) -> str:
        return f"Instruction: {self.doc_to_question(doc)}\nCode:"

    def doc_to_target(self, doc: dict[str, Any]) -> str:
        return f" {doc['output']}" if doc["output"].strip() else ""

    def paper_examples(self, limit: int | None) -> list[Example]:
        docs = self.docs("test")[:limit]
        plain = [self.example(doc, "test", row) for row, doc in enumerate(docs)]
        prompts = [f"Instruction: {doc['instruction']}\nCode:" for doc in docs]
        return [replace(e, prompt=prompt, spans=()) for e, prompt in zip(plain, prompts, strict=True)]
