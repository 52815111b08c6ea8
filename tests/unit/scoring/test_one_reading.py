"""A completion is read alike wherever it is judged: by the metrics, for ``filtered``, and in a corpus's figures."""

from __future__ import annotations

from typing import Any

import pytest

from spd_lightning.evaluation.metrics import ExactMatchNumber, LetterAccuracy, ParseRate, TextExactMatch
from spd_lightning.scoring.answers import letters_up_to, reading_stops
from spd_lightning.scoring.judging import correct_completions
from spd_lightning.scoring.verdicts import holds_answer
from spd_lightning.tasks import Example

THOUGHT = "<think>12, or (A)?</think>"
READINGS = {
    "number": (
        "18",
        ["She will have 18 eggs in 24 hours.", f"{THOUGHT}18", "12", "<think>18", "#### 18 of 20", "no idea"],
    ),
    "letter": ("E", ["option e", f"{THOUGHT}\nE", "A is tempting, but E is correct", "A and E", "hm", "<think>E"]),
    "text": ("valid", ["Valid.", f"{THOUGHT}valid", "<answer>valid</answer>", "invalid", "<think>valid", ""]),
    "likelihood": ("x = 1", ["```python:a.py\nx = 1\n```", f"{THOUGHT}\n    x = 1", "x = (", "<think>x = 1", "", "x"]),
}
NEXT = "\n\nQuestion: And now?\nAnswer:"  # of a base model that goes on, where the protocol stops nowhere
GOES_ON = {  # by kind, whether it is right
    "number": {f"18{NEXT} 9": True, f"9{NEXT} 18": False, f"#### 18{NEXT} so\n#### 9": True},
    "letter": {f"E{NEXT} A": True, f"A{NEXT} The answer is E": False, f"hm{NEXT} E": False},
    "text": {f"valid{NEXT} <answer>invalid</answer>": True, f"invalid{NEXT} <answer>valid</answer>": False},
    "likelihood": {"```python\nx = 1\n```\nInstruction: y = (": True, "x = (\n\nInstruction: y": False},
}


@pytest.mark.parametrize("kind", READINGS)
def test_filtered_and_figures_read_as_the_metrics_do(kind: Any) -> None:
    expected, completions = READINGS[kind][0], [*READINGS[kind][1], *GOES_ON[kind]]
    examples = tuple(Example(f"e{i}", "Q", f" {expected}", expected=expected) for i in range(len(completions)))
    rest = {"sample": 0, "prompt": "Q", "token_ids": [1], "num_tokens": 1, "finish_reason": "stop", "seed": 0}
    records = [{"id": e.id, "completion": c, **rest} for e, c in zip(examples, completions, strict=True)]
    letters = letters_up_to(e.expected for e in examples) if kind == "letter" else "ABCD"
    metric: Any = {
        "number": ExactMatchNumber("flexible"),
        "letter": LetterAccuracy(letters),
        "text": TextExactMatch(),
        "likelihood": ParseRate(),
    }[kind]
    verdicts = [metric.verdict(c) if kind == "likelihood" else metric.verdict(c, expected) for c in completions]
    assert correct_completions(examples, kind, records) == verdicts
    assert any(verdicts) and not all(verdicts)
    assert verdicts[-len(GOES_ON[kind]) :] == list(GOES_ON[kind].values())
    answered = [holds_answer(c, kind, letters, reading_stops(kind)) for c in completions]
    assert all(a for a, right in zip(answered, verdicts, strict=True) if right)  # what is right was answered
    assert not all(answered)
