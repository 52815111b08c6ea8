"""Stage 4: how answers are decoded: greedily unless told otherwise, and what was typed when it changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from spd_lightning.errors import UserError
from spd_lightning.generation.sampling import SamplingParams
from spd_lightning.tasks.task import Benchmark

SEVERAL = (0.8, 0.95)  # temperature and top-p of several samples where none are typed (arXiv:2107.03374)


@dataclass(frozen=True)
class Decoding:
    """How a token is chosen; the defaults are greedy.

    Attributes:
        temperature: 0 takes the most probable token.
        top_p: Mass that is kept; 1 keeps all.
        top_k: Tokens that are kept; 0 keeps all.

    Raises:
        UserError: For a number that is not possible, or a cut of a greedy choice.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        SamplingParams(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k)  # which refuses
        if self.temperature == 0 and (self.top_p, self.top_k) != (1.0, 0):
            raise UserError(
                f"top_p={self.top_p} and top_k={self.top_k} change nothing at temperature 0, which takes the most "
                "probable token. Set --evaluation.temperature above 0, or leave the two out."
            )

    @property
    def is_greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0

    def __str__(self) -> str:
        """As results and reports name it."""
        if self.is_greedy:
            return "greedy"
        cut = f", top-k {self.top_k}" if self.top_k else ""
        return f"temperature {self.temperature:g}, top-p {self.top_p:g}{cut}"


GREEDY = Decoding()


def chosen_decoding(
    num_samples: int = 1, temperature: float | None = None, top_p: float | None = None, top_k: int | None = None
) -> Decoding:
    """The decoding that options mean: without a temperature greedy for one answer, 0.8 and top-p 0.95 for several.

    Raises:
        UserError: For what is not possible, or changes nothing.

    >>> str(chosen_decoding()), str(chosen_decoding(8)), str(chosen_decoding(temperature=0.6))
    ('greedy', 'temperature 0.8, top-p 0.95', 'temperature 0.6, top-p 1')
    """
    if num_samples < 1:
        raise UserError(f"num_samples={num_samples} scores nothing. Set --evaluation.num_samples to at least 1.")
    several = temperature is None and num_samples > 1
    kept = SEVERAL[1] if several else 1.0
    made = Decoding(
        (SEVERAL[0] if several else 0.0) if temperature is None else temperature,
        kept if top_p is None else top_p,
        0 if top_k is None else top_k,
    )
    if num_samples > 1 and made.is_greedy:
        raise UserError(
            f"num_samples={num_samples} at temperature 0 is one answer {num_samples} times. Set "
            "--evaluation.temperature above 0, or --evaluation.num_samples 1."
        )
    return made


def samples_of(benchmark: Benchmark, num_samples: int) -> int:
    """How many answers an example of a benchmark gets: what is compared by likelihood has one."""
    return num_samples if benchmark.output_type == "generate" else 1
