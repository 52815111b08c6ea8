"""Stage 4: scorers as `evaluate.Metric` subclasses, instantiated directly: no hub, no download, no cache file.

Each takes texts (or verdicts, or sums) of all examples at once and returns plain numbers, so it can be used alone:

>>> ExactMatchNumber("flexible").compute(predictions=["It is $18."], references=["18"])
{'exact_match_flexible': 1.0}

`run_benchmark` applies them once, to the records of all processes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

import datasets
import evaluate

from spd_lightning.errors import UserError
from spd_lightning.scoring.answers import (
    NEXT_TURN,
    NumberMode,
    extract_code,
    extract_letter,
    extract_number,
    extract_text,
    normalise_text,
    numbers_equal,
    parses,
)
from spd_lightning.tasks import numbers
from spd_lightning.tasks.golds import NUMBER_WANTED

_CITATION = "arXiv:2605.22675"


class _Metric(evaluate.Metric):
    """A metric in memory whose inputs are ``predictions`` and ``references`` of the Arrow types named below."""

    about: str
    prediction_type: str = "string"
    reference_type: str | None = "string"

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Value(self.prediction_type)}
        if self.reference_type is not None:
            features["references"] = datasets.Value(self.reference_type)
        return evaluate.MetricInfo(
            description=self.about,
            citation=_CITATION,
            inputs_description="See the class.",
            features=datasets.Features(features),
        )


def share(verdicts: Sequence[bool]) -> float:
    """Share of right answers; none of none is refused, since it would be a score of nothing."""
    if not verdicts:
        raise ValueError("There is nothing to score.")
    return sum(verdicts) / len(verdicts)


class ExactMatchNumber(_Metric):
    """Share of completions whose number equals the reference, as numbers, within 1e-4.

    Args:
        mode: ``strict`` (the number after ``####``) or ``flexible`` (the number that a careful person reads).
        stops: Completions are cut before the first of these.
    """

    about = "Share of completions whose extracted number equals the reference number."

    def __init__(self, mode: NumberMode = "flexible", stops: Sequence[str] = NEXT_TURN) -> None:
        super().__init__()
        self.mode, self.stops = mode, tuple(stops)

    def verdict(self, prediction: str, reference: str) -> bool:
        """Whether one completion is right."""
        return numbers_equal(extract_number(prediction, self.mode, self.stops)[0], gold_number(reference))

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        return {f"exact_match_{self.mode}": share([self.verdict(p, r) for p, r in zip(predictions, references)])}


class LetterAccuracy(_Metric):
    """Share of completions that name the reference letter; a single letter is its own answer.

    Args:
        letters: The allowed letters, upper case.
        stops: Completions are cut before the first of these.
    """

    about = "Share of completions that name the reference letter."

    def __init__(self, letters: str = "ABCD", stops: Sequence[str] = NEXT_TURN) -> None:
        super().__init__()
        self.letters, self.stops = letters, tuple(stops)

    def verdict(self, prediction: str, reference: str) -> bool:
        """Whether one completion is right."""
        return extract_letter(prediction, self.letters, self.stops)[0] == reference

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        return {"acc": share([self.verdict(p, r) for p, r in zip(predictions, references)])}


class TextExactMatch(_Metric):
    """Share of completions whose first line (or first lines, where the reference has several) is the reference.

    Args:
        stops: Completions are cut before the first of these.
    """

    about = "Share of completions equal to the reference after normalisation."

    def __init__(self, stops: Sequence[str] = NEXT_TURN) -> None:
        super().__init__()
        self.stops = tuple(stops)

    def verdict(self, prediction: str, reference: str) -> bool:
        """Whether one completion is right."""
        return extract_text(prediction, reference, self.stops)[0] == normalise_text(reference)

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        return {"exact_match": share([self.verdict(p, r) for p, r in zip(predictions, references)])}


class PassAtK(_Metric):
    """Unbiased pass@k: predictions are verdicts, references the ids of the problems they belong to.

    ``1 - C(n-c, k) / C(n, k)`` for c of n right, averaged over problems; a k above any problem's samples is left out.

    Args:
        way: How the verdicts were formed: empty for tests and program in two processes (``pass@k``), ``one_process``
            for both in one, as the benchmarks define it and other tools do (``pass@k_one_process``).
    """

    about = "Unbiased estimate of the chance that at least one of k samples passes (arXiv:2107.03374)."
    prediction_type = "bool"

    def __init__(self, way: str = "") -> None:
        super().__init__()
        if way not in ("", "one_process"):
            raise ValueError(f"way={way!r} is not known. Use '' or 'one_process'.")
        self.suffix = f"_{way}" if way else ""

    def _compute(self, predictions: list[bool], references: list[str], k: Sequence[int] = (1,)) -> dict[str, float]:
        problems = pass_counts(predictions, references)
        fewest = min(n for n, _ in problems.values())
        return {
            f"pass@{i}{self.suffix}": sum(pass_at_k(n, c, i) for n, c in problems.values()) / len(problems)
            for i in k
            if i <= fewest
        }


def pass_counts(verdicts: Sequence[bool], problems: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Samples and passes of each problem, in order of first appearance."""
    if not verdicts:
        raise ValueError("There is nothing to score.")
    samples = Counter(problems)
    passed = Counter(problem for verdict, problem in zip(verdicts, problems) if verdict)
    return {problem: (samples[problem], passed[problem]) for problem in samples}


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that k of n samples, drawn without replacement, hold at least one of the c that pass.

    >>> pass_at_k(n=5, c=1, k=5)
    1.0
    """
    if not 1 <= k <= n or not 0 <= c <= n:
        raise ValueError(f"n={n}, c={c}, k={k}: needs 1 <= k <= n and 0 <= c <= n.")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


class TokenNLL(_Metric):
    """Negative log-likelihood in nats per unit: predictions are sums over texts, references their lengths.

    The sum of all losses over the sum of all lengths, so that long texts count as much as their tokens do.

    Args:
        unit: ``token``, or ``char`` for a number that does not depend on the tokenizer.
    """

    about = "Negative log-likelihood (nats) of the reference texts per token or character."
    prediction_type = "float64"
    reference_type = "int64"

    def __init__(self, unit: str = "token") -> None:
        super().__init__()
        if unit not in ("token", "char"):
            raise ValueError(f"unit={unit!r} is not known. Use 'token' or 'char'.")
        self.unit = unit

    def _compute(self, predictions: list[float], references: list[int]) -> dict[str, float]:
        if not sum(references):
            raise ValueError("There is nothing to score.")
        return {f"nll_per_{self.unit}": math.fsum(predictions) / sum(references)}


class ParseRate(_Metric):
    """Share of completions whose program (see `extract_code`) parses as Python."""

    about = "Share of completions that parse as Python."
    reference_type = None

    def verdict(self, prediction: str) -> bool:
        """Whether one completion parses; code may be indented as a whole."""
        return parses(extract_code(prediction))

    def _compute(self, predictions: list[str]) -> dict[str, float]:
        return {"parse_rate": share([self.verdict(p) for p in predictions])}


def gold_number(reference: str) -> Decimal:
    """The number that a gold answer states, alone or as the answer of a worked solution.

    Raises:
        UserError: If it states none that could be compared (``NaN``, ``1e400``, words): nothing would ever equal it.
    """
    number = numbers.gold_number(reference)
    number = extract_number(reference, "flexible", ())[0] if number is None else number
    if number is None:
        raise UserError(f"The gold answer {reference!r} is no number that can be compared. Needed: {NUMBER_WANTED}.")
    return number
