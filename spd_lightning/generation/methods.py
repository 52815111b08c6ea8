"""The methods by which a corpus is made and a student trained, in the order in which reports show them."""

from __future__ import annotations

from typing import Literal

Method = Literal["base", "psr", "ssd", "spd", "filtered"]

METHODS: dict[str, str] = {  # those that train, each as a sentence of a model card
    "psr": "PSR, plain self-retraining: trained on its own plainly sampled completions",
    "ssd": "SSD, simple self-distillation (arXiv:2604.01193): trained on its own completions, truncated sampling",
    "spd": "SPD, Self-Policy Distillation (arXiv:2605.22675): trained on its own completions, sampled while keys and "
    "values were projected onto the capability subspace",
    "filtered": "filtered self-distillation: trained on those of its own completions that agree with the gold answer "
    "(an external signal)",
}
