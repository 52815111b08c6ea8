"""One prompt format for calibration, generation, training and scoring; where they differ, that is said."""

from __future__ import annotations

from spd_lightning.model.chat_template import PromptFormat
from spd_lightning.pipeline.parts import Parts


def formats_said(parts: Parts, training: PromptFormat) -> list[str]:
    """What a user should know of prompt formats that differ between stages, or that a benchmark does not take.

    Args:
        parts: The objects of the stages.
        training: Of the texts that the student is, or was, trained on.
    """
    suite = parts.benchmarks.suite
    scoring = suite.settings["prompt_format"]
    said = []
    if len({parts.extraction.prompt_format, training, scoring}) > 1:
        said.append(
            f"Prompt formats differ: calibration {parts.extraction.prompt_format} (subspace.prompt_format), training "
            f"{training} (data.prompt_format), scoring {scoring} (evaluation.prompt_format)"
        )
    if scoring == "chat" and (suite.options.tasks or suite.context.trained_task):
        plain = [b.task for b in suite.benchmarks() if b.output_type == "choices"]
        said += (
            [f"Likelihoods are read on the plain text, not in the chat template: {', '.join(plain)}"] if plain else []
        )
    return said
