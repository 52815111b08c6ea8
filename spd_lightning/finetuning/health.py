"""Stage 3: how much of the texts was learned."""

from __future__ import annotations

from collections.abc import Mapping

from spd_lightning.health import Health

MOST_CUT = 0.1  # share of texts from which on a warning is given


def training_health(read: Mapping[str, int]) -> Health:
    """The line of a training.

    Args:
        read: ``texts`` that were learned, ``cut`` at model.max_length, ``left_out`` without a token to learn; and the
            ``batches`` of the ``of_batches`` of an epoch that were taken, where an option of the trainer cuts it short;
            the ``steps`` of ``of_steps`` where it ended early; ``warmup`` steps, where those are all ``in_steps``.
    """
    all_texts = read["texts"] + read["left_out"]
    cut, left_out = read["cut"] / max(all_texts, 1), read["left_out"] / max(all_texts, 1)
    found = []
    if cut > MOST_CUT or left_out:
        lost = f", and {read['left_out']} have no token left to learn" if left_out else ""
        found.append(f"{read['cut']} of {all_texts} texts lose their end{lost}. Raise max_length (--model.max_length).")
    if "batches" in read:
        found.append(
            f"{read['batches']} of the {read['of_batches']} batches of an epoch are taken: "
            "trainer.limit_train_batches or trainer.overfit_batches asks for it. Leave it out to learn all texts."
        )
    if "steps" in read:
        found.append(
            f"The training ended at step {read['steps']} of {read['of_steps']}, before its learning rate fell to 0: "
            "trainer.max_time or a callback ended it. Give it more, or plan fewer max_epochs (--trainer.max_epochs)."
        )
    if "warmup" in read:
        found.append(
            f"The learning rate never reached learning_rate (--model.learning_rate): its warm-up is {read['warmup']} "
            f"steps and the training {read['in_steps']}. Lower warmup_epochs (--model.warmup_epochs), or train for "
            "longer."
        )
    return Health("fine_tune", {"texts": read["texts"], "cut": cut, "left_out": left_out}, tuple(found))
