"""How the models of a run were computed: dtype, the rounding noise that was measured, what a cast dropped."""

from __future__ import annotations

from spd_lightning.report.render import Block, Bullets
from spd_lightning.report.runs import Run


def arithmetic_blocks(run: Run) -> list[Block]:
    """Sentences on the arithmetic of a run's scores; none for a run that does not tell."""
    dtypes: dict[str, set[str]] = {}
    noise: dict[str, list[str]] = {}
    kept: dict[str, float] = {}
    for name, facts in (run.results.get("benchmarks") or {}).items():
        task, _, method = name.rpartition(".")
        if "dtype" in facts:
            dtypes.setdefault(facts["dtype"], set()).add(method)
        if (found := facts.get("rounding")) is not None:
            text = f"{task} {found['nats_per_token']:.1e} nats a token ({found['examples']} examples)"
            noise.setdefault(f"{facts['dtype']}, batches of 1 and {found['batch_sizes'][1]}", []).append(text)
        if "update_kept" in facts:
            kept[method] = facts["update_kept"]
    lines = [f"Computed in {dtype}: {', '.join(sorted(methods))}." for dtype, methods in sorted(dtypes.items())]
    for how, texts in noise.items():
        lines.append(
            f"Rounding noise of the base, measured between two batch sizes ({how}): {'; '.join(texts)}. On a single "
            "text a difference of that size is rounding"
            + ("; --evaluation.dtype float32 makes it small." if how.startswith("bf") else ".")
        )
    for method, share in kept.items():
        lines.append(
            f"All weights of {method} were trained, and its dtype keeps {100 * share:.1f}% of what they learned. Score "
            "it with --evaluation.dtype float32 for all of it."
        )
    return [Bullets(lines)] if lines else []
