"""Stage 3, ``data.keep``: which completions of a corpus are trained on, and three that change them.

``all`` is the method. The others are controls: each takes away, or adds, one thing that could be why self-training
helps. ``correct`` and ``wrong`` ask the gold answers, an external signal: bounds for comparison, no self-distillation.
What is dropped is made up for by repeating what is kept (`training_set.repeated`). Of several tasks each is treated by
itself, so that their shares stay.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from spd_lightning.errors import UserError
from spd_lightning.generation.methods import Method
from spd_lightning.generation.questions import Asked, Questions
from spd_lightning.generation.text import completion_ids, completion_text
from spd_lightning.processes import agree, is_rank_zero
from spd_lightning.scoring.answers import reading_stops
from spd_lightning.scoring.judging import check_consent, correct_completions
from spd_lightning.scoring.verdicts import KINDS
from spd_lightning.seeds import seed_of

Keep = Literal["all", "correct", "majority", "wrong", "shuffled", "renumbered", "drop_shortest"]
Records = list[dict[str, Any]]

NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
DROPPED = 10  # drop_shortest leaves out one in so many


def keep_of(method: Method, keep: Keep) -> Keep:
    """The rule of a method: ``filtered`` is ssd with ``correct``.

    Raises:
        UserError: For ``filtered`` with another.
    """
    if method == "filtered" and keep not in ("all", "correct"):
        raise UserError(f"method=filtered is ssd with keep=correct, not {keep}. Set --data.method ssd.")
    return "correct" if method == "filtered" else keep


def check_keep(keep: Keep, questions: Questions, allow: bool | None) -> None:
    """Refuse a rule that cannot be followed, before anything is generated.

    Args:
        keep: The rule.
        questions: What is asked.
        allow: Consent to run programs.

    Raises:
        UserError: For ``majority`` on answers that cannot be counted or with one sample a prompt, ``shuffled`` with one
            prompt, or a gold filter on programs without consent to run them.
    """
    for name, part in questions.asked.items():
        answer_type = part.task.answer_type
        if keep in ("correct", "wrong"):
            check_consent(answer_type, allow)
        if keep == "majority" and answer_type not in ("number", "letter"):
            raise UserError(
                f"keep=majority counts equal answers, numbers or letters; those of {name} are of type "
                f"{answer_type}. Set --data.keep to another, or task (--subspace.task) to a task of numbers or letters."
            )
    if keep == "majority" and questions.num_generations < 2:
        raise UserError(
            f"keep=majority needs several samples a prompt, and num_generations="
            f"{questions.num_generations}. Set --data.num_generations 8."
        )
    prompts = questions.by_task({request.id for request in questions.requests}, str)
    if keep == "shuffled" and (few := [name for name, ids in prompts.items() if len(ids) < 2]):
        whose = f" of {few[0]}" if len(prompts) > 1 else ""
        raise UserError(f"keep=shuffled needs at least two prompts{whose}. Raise num_prompts (--data.num_prompts).")


def keep_records(
    records: Records,
    keep: Keep,
    questions: Questions,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    allow: bool | None = None,
) -> Records:
    """The records that are trained on, in the corpus's order.

    Args:
        records: Of a finished corpus.
        keep: ``all``; ``correct`` (those the gold answer agrees with) or ``wrong`` (the others); ``majority`` (one a
            prompt, the first whose answer is that prompt's most frequent; none where two are equally frequent);
            ``shuffled`` (every prompt gets the completion of another one of its task); ``renumbered`` (every number
            that is not in the question becomes another of its length, the same one throughout a text);
            ``drop_shortest`` (all but the shortest tenth).
        questions: What was asked; its task has the answers.
        tokenizer: The model's.
        seed: Of what is drawn.
        allow: Consent to run programs.

    Raises:
        UserError: If none is left of a task, or programs would have to be run without consent.

    Ranks:
        Collective for the gold filters; rank 0 judges, since a program near its time limit may pass once and fail once.
    """
    kept = []
    for name, own in questions.by_task(records, _id).items():
        part = _keep(own, keep, questions.asked[name], questions, tokenizer, seed, allow)
        if not part:
            what = {"correct": "agree with the gold answer", "wrong": "disagree with the gold answer"}
            whose = f" of {name}" if len(questions.asked) > 1 else ""
            raise UserError(
                f"keep={keep}: 0 of {len(own)} completions{whose} {what.get(keep, 'are left')}, so nothing is left to "
                "train on. Raise num_prompts (--data.num_prompts) or num_generations "
                "(--data.num_generations), or set --data.keep=all."
            )
        kept += part
    place = {(record["id"], record["sample"]): i for i, record in enumerate(records)}
    return sorted(kept, key=lambda record: place[record["id"], record["sample"]])


def _id(record: dict[str, Any]) -> str:
    return str(record["id"])


def _keep(
    records: Records,
    keep: Keep,
    asked: Asked,
    questions: Questions,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    allow: bool | None,
) -> Records:
    """What is kept of one task's records."""
    if keep in ("correct", "wrong"):
        right = agree(_right(records, asked, allow) if is_rank_zero() else [])
        return [record for record, correct in zip(records, right, strict=True) if correct == (keep == "correct")]
    if keep == "majority":
        return _majority(records, asked)
    if keep == "shuffled":
        return _shuffled(records, seed)
    if keep == "renumbered":
        return _renumbered(records, asked, questions, tokenizer, seed)
    return _without_shortest(records, seed) if keep == "drop_shortest" else records


def _right(records: Records, asked: Asked, allow: bool | None) -> list[bool]:
    judged = [{**record, "completion": asked.judged_part(record["completion"])} for record in records]
    return correct_completions(asked.prompts, asked.task.answer_type, judged, allow)


def _majority(records: Records, asked: Asked) -> Records:
    answer_type, letters = asked.task.answer_type, asked.letters
    read = KINDS[answer_type].read
    by_prompt: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    for record in records:
        answer, _ = read(asked.judged_part(record["completion"]), "", letters, reading_stops(answer_type))
        if answer is not None:
            same = str(Decimal(answer).normalize()) if answer_type == "number" else answer
            by_prompt[record["id"]].append((same, record))
    kept = []
    for answers in by_prompt.values():
        ranked = Counter(answer for answer, _ in answers).most_common(2)
        if len(ranked) == 1 or ranked[0][1] > ranked[1][1]:
            kept.append(next(record for answer, record in answers if answer == ranked[0][0]))
    return kept


def _shuffled(records: Records, seed: int) -> Records:
    """Completions go round one circle of all prompts, each sample's for itself, so that none stays where it was."""
    moved: dict[tuple[str, int], dict[str, Any]] = {}
    for sample in sorted({record["sample"] for record in records}):
        circle = [record for record in records if record["sample"] == sample]
        random.Random(seed_of("shuffled", seed, sample)).shuffle(circle)
        for record, other in zip(circle, [*circle[1:], circle[0]], strict=True):
            words = {name: other[name] for name in ("completion", "token_ids", "num_tokens", "finish_reason")}
            moved[record["id"], sample] = {**record, **words}
    return [moved[record["id"], record["sample"]] for record in records]


def _renumbered(
    records: Records, asked: Asked, questions: Questions, tokenizer: PreTrainedTokenizerBase, seed: int
) -> Records:
    texts = {e.id: e.prompt[asked.task.solved_end(e) :] for e in asked.prompts}
    prompt_ids = {request.id: request.prompt_ids for request in questions.requests}
    special = set(tokenizer.all_special_ids)
    changed = []
    for record in records:
        ids, before = list(record["token_ids"]), prompt_ids[record["id"]]
        end = len(ids)
        while end and ids[end - 1] in special:
            end -= 1
        text = completion_text(tokenizer, before, ids[:end])
        draw = random.Random(seed_of("renumbered", seed, record["id"], record["sample"]))
        new = renumber(text, texts[record["id"]], draw)
        if new != text:  # of the same length, so a cut before a stop string stays where it was
            ids = [*completion_ids(tokenizer, before, new), *ids[end:]]
            completion = new[: len(record["completion"])]
            record = {**record, "completion": completion, "token_ids": ids, "num_tokens": len(ids)}
        changed.append(record)
    return changed


def renumber(text: str, question: str, draw: random.Random) -> str:
    """A text with every number that is not in the question replaced by another of its length.

    One number becomes the same other one everywhere, so that sums and answers still repeat each other as they did; the
    new ones are neither in the question nor drawn twice, as long as there are such.

    >>> renumber("6 + 7 = 13. #### 13", "Eva has 6 pears and gets 7.", random.Random(0))
    '6 + 7 = 62. #### 62'
    """
    given = {plain for plain in (found.replace(",", "") for found in NUMBER.findall(question))}
    others: dict[str, str] = {}

    def other(number: str) -> str:
        for attempt in range(200):
            new = re.sub(r"\d", lambda _: draw.choice("0123456789"), number)
            if len(number) > 1 and number[0] != "0" and new[0] == "0":
                new = draw.choice("123456789") + new[1:]
            taken = given | set(others.values()) if attempt < 100 else set()
            if new != number and new.replace(",", "") not in taken:
                return new
        raise AssertionError(number)  # ten digits, one of them taken

    def replace(found: re.Match[str]) -> str:
        number = found[0]
        if number.replace(",", "") in given:
            return number
        if number not in others:
            others[number] = other(number)
        return others[number]

    return NUMBER.sub(replace, text)


def _without_shortest(records: Records, seed: int) -> Records:
    """All but the tenth with the fewest tokens; which of equally long ones go is drawn."""

    def order(record: dict[str, Any]) -> tuple[int, int]:
        return record["num_tokens"], seed_of("drop_shortest", seed, record["id"], record["sample"])

    gone: Sequence[dict[str, Any]] = sorted(records, key=order)[: len(records) // DROPPED]
    names = {(record["id"], record["sample"]) for record in gone}
    return [record for record in records if (record["id"], record["sample"]) not in names]
