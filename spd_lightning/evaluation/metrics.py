"""Stage 4: scorers as `evaluate.Metric` subclasses, instantiated directly: no hub, no download, no cache file.

Each takes texts (or verdicts, or sums) of all examples at once and returns plain numbers, so it can be used alone:

>>> ExactMatchNumber("flexible").compute(predictions=["It is $18."], references=["18"])
{'exact_match_flexible': 1.0}

`_info` and `_compute` are what evaluate 0.4.6 has its subclasses write.
What is right, and what each metric is, stands in the table of ``scoring/verdicts.py``, from which the scores of a
benchmark are computed too.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Sequence

import datasets
import evaluate

from spd_lightning.scoring.answers import NEXT_TURN, NumberMode, extract_number, gold_number, numbers_equal
from spd_lightning.scoring.counting import pass_at_k
from spd_lightning.scoring.verdicts import METRICS, judge
from spd_lightning.tasks.task import AnswerType

_CITATION = "arXiv:2605.22675"


class _Metric(evaluate.Metric):
    """A metric in memory whose inputs are ``predictions`` and ``references`` of the Arrow types named below.

    Args:
        name: In the table of metrics, which says what it is.
    """

    prediction_type: str = "string"
    reference_type: str | None = "string"

    def __init__(self, name: str) -> None:
        self.metric_name = name
        with tempfile.TemporaryDirectory() as folder:  # one is made, though nothing is kept in it: not in the home
            super().__init__(keep_in_memory=True, cache_dir=folder)

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Value(self.prediction_type)}
        if self.reference_type is not None:
            features["references"] = datasets.Value(self.reference_type)
        return evaluate.MetricInfo(
            description=METRICS[self.metric_name].about,
            citation=_CITATION,
            inputs_description="See the class.",
            features=datasets.Features(features),
        )


class _ShareOfRight(_Metric):
    """The share of completions that `judge` calls right.

    Args:
        name: See `_Metric`.
        answer_type: How completions are read.
        letters: The allowed letters where one is looked for.
        stops: Completions are cut before the first of these.
    """

    def __init__(self, name: str, answer_type: AnswerType, letters: str = "ABCD", stops: Sequence[str] = ()) -> None:
        super().__init__(name)
        self.answer_type, self.letters, self.stops = answer_type, letters, tuple(stops)

    def verdict(self, prediction: str, reference: str = "") -> bool:
        """Whether one completion is right."""
        return judge(reference, prediction, self.answer_type, self.letters, self.stops).correct

    def _compute(self, predictions: list[str], references: list[str] | None = None) -> dict[str, float]:
        verdicts = [self.verdict(p, r) for p, r in zip(predictions, references or [""] * len(predictions), strict=True)]
        return {self.metric_name: share(verdicts)}


def share(verdicts: Sequence[bool]) -> float:
    """Share of right answers; none of none is refused, since it would be a score of nothing."""
    if not verdicts:
        raise ValueError("There is nothing to score.")
    return sum(verdicts) / len(verdicts)


class ExactMatchNumber(_ShareOfRight):
    """Share of completions whose number equals the reference, as numbers, within 1e-4.

    Args:
        mode: ``strict`` (the number after ``####``) or ``flexible`` (the number that a careful person reads).
        stops: Completions are cut before the first of these.
    """

    def __init__(self, mode: NumberMode = "flexible", stops: Sequence[str] = NEXT_TURN) -> None:
        super().__init__(f"exact_match_{mode}", "number", stops=stops)
        self.mode = mode

    def verdict(self, prediction: str, reference: str = "") -> bool:
        """Whether one completion is right."""
        if self.mode == "strict":
            return numbers_equal(extract_number(prediction, "strict", self.stops)[0], gold_number(reference))
        return super().verdict(prediction, reference)


class LetterAccuracy(_ShareOfRight):
    """Share of completions that name the reference letter; a single letter is its own answer.

    Args:
        letters: The allowed letters, upper case.
        stops: Completions are cut before the first of these.
    """

    def __init__(self, letters: str = "ABCD", stops: Sequence[str] = NEXT_TURN) -> None:
        super().__init__("acc", "letter", letters, stops)


class TextExactMatch(_ShareOfRight):
    """Share of completions whose first line (or first lines, where the reference has several) is the reference.

    Args:
        stops: Completions are cut before the first of these.
    """

    def __init__(self, stops: Sequence[str] = NEXT_TURN) -> None:
        super().__init__("exact_match", "text", stops=stops)


class ParseRate(_ShareOfRight):
    """Share of completions whose program (see `extract_code`) parses as Python; code may be indented as a whole."""

    reference_type = None

    def __init__(self) -> None:
        super().__init__("parse_rate", "likelihood")


class PassAtK(_Metric):
    """Unbiased pass@k: predictions are verdicts, references the ids of the problems they belong to.

    ``1 - C(n-c, k) / C(n, k)`` for c of n right, averaged over problems; a k above any problem's samples is left out.

    Args:
        way: How the verdicts were formed: empty for tests and program in two processes (``pass@k``), ``one_process``
            for both in one, as the benchmarks define it and other tools do (``pass@k_one_process``).
    """

    prediction_type = "bool"

    def __init__(self, way: str = "") -> None:
        if way not in ("", "one_process"):
            raise ValueError(f"way={way!r} is not known. Use '' or 'one_process'.")
        super().__init__(f"pass@k_{way}" if way else "pass@k")

    def _compute(self, predictions: list[bool], references: list[str], k: Sequence[int] = (1,)) -> dict[str, float]:
        if not predictions:
            raise ValueError("There is nothing to score.")
        samples = Counter(references)
        passed = Counter(problem for verdict, problem in zip(predictions, references) if verdict)
        fewest = min(samples.values())
        return {
            self.metric_name.replace("@k", f"@{i}"): sum(pass_at_k(n, passed[p], i) for p, n in samples.items())
            / len(samples)
            for i in k
            if i <= fewest
        }


class TokenNLL(_Metric):
    """Negative log-likelihood in nats per unit: predictions are sums over texts, references their lengths.

    The sum of all losses over the sum of all lengths, so that long texts count as much as their tokens do.

    Args:
        unit: ``token``, or ``char`` for a number that does not depend on the tokenizer.
    """

    prediction_type = "float64"
    reference_type = "int64"

    def __init__(self, unit: str = "token") -> None:
        if unit not in ("token", "char"):
            raise ValueError(f"unit={unit!r} is not known. Use 'token' or 'char'.")
        super().__init__(f"nll_per_{unit}")

    def _compute(self, predictions: list[float], references: list[int]) -> dict[str, float]:
        if not sum(references):
            raise ValueError("There is nothing to score.")
        return {self.metric_name: math.fsum(predictions) / sum(references)}
