"""Stage 2: whether a corpus is worth training on: empty, cut, looping and equal completions, and what to try."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spd_lightning.errors import UserError
from spd_lightning.generation.questions import Questions
from spd_lightning.health import Health, commonest, fewer_than_asked
from spd_lightning.tasks.mix import shares, weights_of

MOST_EMPTY, MOST_CUT, MOST_LOOPING, MOST_EQUAL = 0.1, 0.5, 0.2, 0.5  # shares from which on a warning is given
FEW = 4  # fewer completions than this are never called all alike
WEAKER = "a larger rank (--subspace.rank) or a smaller strength (--subspace.strength)"  # of the projection


def corpus_lines(records: Sequence[Mapping[str, Any]], questions: Questions) -> list[Health]:
    """The line of a finished corpus; of several tasks, one for each."""
    if len(questions.asked) == 1:
        return [corpus_health(records, questions)]
    return [corpus_health(own, questions, task) for task, own in questions.by_task(records, lambda r: r["id"]).items()]


def corpus_health(records: Sequence[Mapping[str, Any]], questions: Questions, task: str = "") -> Health:
    """One line.

    Args:
        records: Of the corpus, or of one task's part of it.
        questions: What was asked.
        task: Whose they are, where there are several.
    """
    texts = [str(r["completion"]).strip() for r in records]
    held = [t for t in texts if t]
    n = max(len(records), 1)
    figures: dict[str, int | float] = {
        "completions": len(records),
        "empty": 1 - len(held) / n,
        "cut": sum(r["finish_reason"] == "length" for r in records) / n,
        "looping": sum(loops(r["token_ids"]) for r in records) / n,
        "most_frequent": commonest(held)[1],
    }
    found: list[str] = []
    counts, wanted, prompts, limit = questions.counts, questions.num_prompts, questions.prompts, questions.new_tokens
    if task:
        part = questions.asked[task]
        counts, prompts, limit = questions.counts_of(task), part.prompts, part.new_tokens
        wanted = shares(questions.num_prompts, weights_of(questions.tasks))[task]
    if wanted is not None and counts["prompts"] < wanted:
        whose = "" if not task else f" (its share of {questions.num_prompts})"
        found += fewer_than_asked("data.num_prompts", wanted, counts["prompts"], f"prompts{whose}")
    for name, done in (("truncated", "cut"), ("rejected", "left out")):
        if counts[name]:
            figures[f"prompts_{done.replace(' ', '_')}"] = counts[name]
    if figures["empty"] > MOST_EMPTY:
        lost = f"{len(records) - len(held)} of {len(records)} completions are empty"
        found.append(f"{lost} and would be trained as they were sampled. {_fuller(questions)}")
    if figures["cut"] > MOST_CUT:
        found.append(
            f"{figures['cut']:.0%} of the completions are cut at {limit} tokens. Raise max_new_tokens "
            "(--data.max_new_tokens), or end them with stop (--data.stop)."
        )
    if figures["looping"] > MOST_LOOPING:
        found.append(
            f"{figures['looping']:.0%} of the completions repeat themselves. Try repetition_penalty=1.1 "
            f"(--data.repetition_penalty), another temperature (--data.temperature), {WEAKER}."
        )
    text, share = commonest(held)
    if len(held) >= FEW and share > MOST_EQUAL and commonest(e.expected for e in prompts)[1] < share / 2:
        alike = "All" if share == 1 else f"{share:.0%} of the"
        found.append(
            f"{alike} completions are alike ({text[:40]!r}), the expected answers are not. Raise temperature "
            "(--data.temperature) or rank (--subspace.rank), or look at the prompts: they may not reach the model as "
            "they were meant."
        )
    return Health(f"generate {task}".rstrip(), figures, tuple(found))


def loops(ids: Sequence[int]) -> bool:
    """Whether a completion repeats itself: more than half of its runs of four tokens stood before, of at least 16."""
    runs = [tuple(ids[i : i + 4]) for i in range(len(ids) - 3)]
    return len(ids) >= 16 and len(set(runs)) < len(runs) / 2


def _fuller(questions: Questions) -> str:
    chat = "prompt_format=chat (--data.prompt_format), " if questions.prompt_format == "plain" else ""
    return f"Try {chat}prompts that end where an answer begins, {WEAKER}."


def refuse_few(records: Sequence[Mapping[str, Any]], questions: Questions, least: float) -> None:
    """End a run that would train on what is left of a corpus.

    Args:
        records: Of the corpus.
        questions: What was asked.
        least: ``data.min_completions``.

    Raises:
        UserError: If fewer than this share of the completions that were asked for hold text.
    """
    asked = questions.counts["prompts"] * questions.num_generations  # those left out by reject are no completions
    held = sum(bool(str(r["completion"]).strip()) for r in records)
    if held >= least * asked:
        return
    lost, why = asked - len(records), f"{len(records) - held} are empty"
    why += f", {lost} were left out by long_prompts (--data.long_prompts)" if lost else ""
    raise UserError(
        f"Only {held} of {asked} completions hold text ({why}), and min_completions={least} wants "
        f"{least:.0%} of them. {_fuller(questions)} --data.min_completions 0 trains on them all the same."
    )
