"""Stage 3: fine-tune the base model on its own projected generations, with LoRA, projection off.

Reference: arXiv:2605.22675, section 3 and eq. 14 (next-token loss over prompt and completion of the raw corpus).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def cosine_factor(step: int, warmup: int, total: int) -> float:
    """Share of the peak learning rate at an optimiser step: linear from 0 over ``warmup`` steps, then cosine to 0."""
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * min((step - warmup) / max(total - warmup, 1), 1.0)))
