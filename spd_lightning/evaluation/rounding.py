"""Stage 4: how much of a score is rounding. The same base, the same texts, two batch sizes.

Matrix products sum in an order that hangs on the number of rows, so a text's likelihood moves with the batch it stands
in. SmolLM2 on a CPU: 3e-7 nats a token (GSM8K) to 8e-6 (the letter of MMLU) in float32, 2e-3 to 6e-2 in bf16. A
difference of two methods on a text below that is no finding about it; over many texts the noise averages
out, for base and student alike.
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spd_lightning.evaluation.continuations import LikelihoodItem
from spd_lightning.evaluation.likelihood import score_choices
from spd_lightning.model.anatomy import context_of
from spd_lightning.tasks.task import Benchmark

EXAMPLES = 8  # as dear as scoring that many examples of a likelihood task twice: seconds on a CPU


def rounding_noise(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, benchmark: Benchmark
) -> dict[str, Any] | None:
    """How far the likelihood of a target moves between being computed alone and in a batch with others.

    Args:
        model: The base, in eval mode.
        tokenizer: The model's.
        benchmark: Its first examples that have a target are taken, without solved examples before them.

    Returns:
        ``nats_per_token``: mean over the examples of |difference| / tokens of the target, in nats; ``examples``, their
        number; ``batch_sizes``, the two. None if no example has a target.

    Ranks:
        This process alone. Issues no collective.
    """
    chosen = [e for e in benchmark.examples if e.target][:EXAMPLES]
    if len(chosen) < 2:
        return None
    items = [LikelihoodItem(e.id, e.prompt, (e.target,)) for e in chosen]
    context = context_of(model.config)
    found = []
    for size in (1, len(items)):
        scores = score_choices(model, tokenizer, items, batch_size=size, max_length=context)
        found.append({s.id: s.log_likelihoods[0] / s.num_tokens[0] for s in scores})
    alone, together = found
    mean = sum(abs(alone[key] - together[key]) for key in alone) / len(items)
    return {"nats_per_token": mean, "examples": len(items), "batch_sizes": [1, len(items)]}
