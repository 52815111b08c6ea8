"""How a completion is judged, and which numbers come of it: one table, `KINDS`, with a row for each answer type.

Stands between a completion's text and every score. A row says how a completion is read, what agrees with the gold
answer, what counts as an answer at all, and the metrics: what each is, what an example counts in it, whether it is a
share; the first one stands for the benchmark. All else follows: the verdicts of stage 4 and of the method ``filtered``
(``judging.py``), the figures of a corpus (`holds_answer`), value, interval and n of every score
(``evaluation/scores.py``), the scorers of ``evaluation/metrics.py``, and what the report says of each number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from spd_lightning.scoring.answers import (
    NEXT_TURN,
    cut_at_stops,
    extract_code,
    extract_letter,
    extract_number,
    extract_text,
    is_gold_number,
    letters_up_to,
    normalise_text,
    numbers_equal,
    parses,
)
from spd_lightning.scoring.counting import Metric, of_losses, of_marked_number, of_passes, of_verdict
from spd_lightning.tasks.task import AnswerType, Example

PASS_K = (1, 10, 100)
SCRIPT = "_script"  # behind a metric's name: answers as the authors' script reads them (see `script_answers`)


@dataclass(frozen=True)
class Verdict:
    """What a completion answered and whether that is right.

    Attributes:
        answer: The answer as it is compared; None where there is none.
        correct: Whether it agrees with the gold answer.
        reason: Why it was read so.
        scores: For programs ``one_process`` (1 passed) where it was asked for, and ``shared`` 1 where the tests allow
            no other way; for compared likelihoods their values by letter.
    """

    answer: str | None
    correct: bool
    reason: str
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """How completions of one answer type are judged.

    Attributes:
        read: Completion, gold answer, allowed letters and stop strings to the answer and the reason.
        agrees: Whether an answer is the gold answer.
        metrics: By name, the one that stands for a benchmark first.
        holds: Whether an answer could be scored at all.
    """

    read: Callable[[str, str, str, Sequence[str]], tuple[str | None, str]]
    agrees: Callable[[str | None, str], bool]
    metrics: Mapping[str, Metric]
    holds: Callable[[str | None], bool] = lambda answer: answer is not None


# -- how a completion is read ------------------------------------------------------------------------------------------


def _number(completion: str, expected: str, letters: str, stops: Sequence[str]) -> tuple[str | None, str]:
    number, reason = extract_number(completion, "flexible", stops)
    marked, _ = extract_number(completion, "strict", stops)
    if marked is not None:
        reason = "marker" if numbers_equal(marked, number) else "marker and reading differ"
    return None if number is None else f"{number:f}", reason


def _code(completion: str, expected: str, letters: str, stops: Sequence[str]) -> tuple[str | None, str]:
    code = extract_code(cut_at_stops(completion, stops))
    return code, "parses" if parses(code) else "does not parse"


def _is_code(answer: str | None) -> bool:
    return answer is not None and parses(answer)


def _runs(answer: str | None, expected: str) -> bool:
    raise ValueError("A program is judged by running it: see judging.judge_all.")


def _by_its_row(answer: str | None, expected: str) -> bool:
    raise ValueError("A row with a rule of its own is judged by that: see judging.judge_all.")


# -- the tables --------------------------------------------------------------------------------------------------------


KINDS: dict[AnswerType, Kind] = {
    "number": Kind(
        read=_number,
        agrees=is_gold_number,
        metrics={
            "exact_match_flexible": Metric(
                "Share of completions whose answer, as a careful person reads it, is the expected number.", of_verdict
            ),
            "exact_match_strict": Metric(
                "Share of answers that stand in the form the task asks for (`#### N`) and equal the expected number. "
                "A completion without that form counts as wrong.",
                of_marked_number,
            ),
        },
    ),
    "letter": Kind(
        read=lambda completion, expected, letters, stops: extract_letter(completion, letters, stops),
        agrees=lambda answer, expected: answer == expected,
        metrics={
            "acc": Metric(
                "Share of questions for which the right letter has the highest log-likelihood, or, where the protocol "
                "generates, is the letter that the completion gives.",
                of_verdict,
            )
        },
    ),
    "text": Kind(
        read=lambda completion, expected, letters, stops: extract_text(completion, expected, stops),
        agrees=lambda answer, expected: answer == normalise_text(expected),
        metrics={
            "exact_match": Metric("Share of completions that equal the expected text after normalisation.", of_verdict)
        },
    ),
    "rule": Kind(
        read=lambda completion, expected, letters, stops: extract_text(completion, expected, stops),
        agrees=_by_its_row,
        metrics={"accuracy": Metric("Share of completions that the rule of their row accepts.", of_verdict)},
    ),
    "program": Kind(
        read=_code,
        agrees=_runs,
        holds=_is_code,
        metrics={
            "pass@k": Metric(
                "Unbiased estimate of the chance that at least one of k sampled programs passes all tests (or, where "
                "there are none, that one of k answers is right): 1 - C(n-c, k) / C(n, k), averaged over problems. "
                "With k = 1 and greedy decoding: the share of problems solved.",
                of_passes(lambda r: r["correct"]),
            ),
            "pass@k_one_process": Metric(
                "pass@k with tests and program in one process, as the benchmark defines it: for comparison with other "
                "tools. In pass@k they run in two, so that a program cannot answer for its tests.",
                of_passes(lambda r: r["scores"]["one_process"]),
            ),
        },
    ),
    "likelihood": Kind(
        read=_code,
        agrees=lambda answer, expected: _is_code(answer),
        holds=_is_code,
        metrics={
            "nll_per_token": Metric(
                "Mean negative log-likelihood of the reference completion per token, in nats. It depends on the "
                "tokenizer; do not compare it between models with different ones.",
                of_losses("tokens"),
                share=False,
            ),
            "nll_per_char": Metric(
                "Negative log-likelihood of the reference completion per character, in nats; comparable between "
                "tokenizers.",
                of_losses("chars"),
                share=False,
            ),
            "parse_rate": Metric("Share of completions that contain a program that parses.", of_verdict),
        },
    ),
}
METRICS = {name: metric for kind in KINDS.values() for name, metric in kind.metrics.items()}
READ_BY_SCRIPT = Metric(
    "The same share with answers as the authors' reference script reads them, flaws included, to compare with "
    "published numbers. Never marked.",
    of_passes(lambda r: r["script_correct"]),
)


def find_metric(name: str) -> tuple[Metric, int] | None:
    """The metric of a name and its k (``pass@10`` is ``pass@k`` at 10, all others are at 1); None if it is unknown."""
    if name.endswith(SCRIPT):
        return READ_BY_SCRIPT, 1
    k = re.fullmatch(r"(pass@)(\d+)(_one_process)?", name)
    if k is not None:
        return METRICS[f"{k[1]}k{k[3] or ''}"], int(k[2])
    return (METRICS[name], 1) if name in METRICS else None


def is_share(name: str) -> bool:
    """Whether a metric is a share, which one that is not known (from another version) is taken for."""
    found = find_metric(name)
    return found is None or found[0].share


def stands_for(answer_type: AnswerType) -> str:
    """The one metric of a benchmark whose comparisons are claims: Holm's correction counts these, marks follow it."""
    return metric_names(answer_type)[0]


def metric_names(answer_type: AnswerType, num_samples: int = 1, script: bool = False) -> list[str]:
    """The metrics of an answer type, the one that stands for the task first; ``script`` adds its second reading."""
    ks = sorted({*(k for k in PASS_K if k <= num_samples), num_samples})
    names = [name.replace("@k", f"@{k}") for name in KINDS[answer_type].metrics for k in (ks if "@k" in name else [1])]
    if not any("@" in name for name in names):  # at 1 it is the share of right answers, which stands there already
        names += [f"pass@{k}" for k in ks if k > 1]
    return [*names, names[0] + SCRIPT] if script else names


# -- verdicts ----------------------------------------------------------------------------------------------------------


def judge(
    expected: str, completion: str, answer_type: AnswerType, letters: str = "ABCD", stops: Iterable[str] = ()
) -> Verdict:
    """Answer, verdict and reason of a completion that is not run as a program.

    Args:
        expected: The gold answer, see `tasks.task.Example`.
        completion: What the model wrote.
        answer_type: Of the task; programs are judged by `judging.judge_all`.
        letters: The allowed letters where a letter is looked for.
        stops: The text is cut before the first of these.

    Raises:
        UserError: For a gold number that nothing could equal.
        ValueError: For a program.
    """
    kind = KINDS[answer_type]
    answer, reason = kind.read(completion, expected, letters, tuple(stops))
    return Verdict(answer, kind.agrees(answer, expected), reason)


def judge_choice(expected: str, log_likelihoods: Mapping[str, float]) -> Verdict:
    """The letter of the highest log-likelihood; equal ones are no answer.

    Args:
        expected: The gold letter.
        log_likelihoods: By letter.
    """
    best = max(log_likelihoods.values())
    winners = [letter for letter, value in log_likelihoods.items() if value == best]
    answer = winners[0] if len(winners) == 1 else None
    return Verdict(answer, answer == expected, "likelihood" if answer else "equal likelihoods", log_likelihoods)


def holds_answer(
    completion: str, answer_type: AnswerType, letters: str = "ABCD", stops: Iterable[str] = NEXT_TURN
) -> bool:
    """Whether a completion has what could be scored: a number, a letter, a program that parses, or any text.

    Read as evaluation reads it, so that a corpus is counted by the rule that its student is scored by.

    Args:
        completion: The completion.
        answer_type: See `tasks.task.AnswerType`.
        letters: The allowed letters where a letter is looked for.
        stops: The text is cut before the first of these.
    """
    kind = KINDS[answer_type]
    return kind.holds(kind.read(completion, "", letters, tuple(stops))[0])


def allowed_letters(answer_type: AnswerType, examples: Iterable[Example]) -> str:
    """The letters that the answers to these questions may be; see `letters_up_to`."""
    return letters_up_to(e.expected for e in examples if answer_type == "letter")
