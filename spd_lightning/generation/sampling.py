"""Stage 2: draw a token so that the draw depends on the row alone, not on the batch it stands in or the process.

Gumbel noise that hangs on row, step and token (`noise`) is added to the filtered logits; the largest sum is the token
(the Gumbel-max trick, so tokens follow the model's filtered distribution exactly). Logits of a batch differ in float32
by rounding from those of a row alone, so a draw also tells whether it was *close*: whether logits that move by half a
``margin`` could change it.

Shapes: b rows, v vocabulary, k candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from spd_lightning.errors import UserError
from spd_lightning.generation.noise import gumbel_noise

TIE_MARGIN = 1e-3  # logit units; batched float32 logits differ from a row's own by up to 2e-4
CANDIDATES = (64, 1024)  # how many of the largest logits are looked at before the whole vocabulary is sorted
CHUNK = 2**18  # noise values computed at once on a CPU, so that they stay in its cache


@dataclass(frozen=True)
class SamplingParams:
    """Every setting of decoding; nothing is taken from the model's own generation_config.

    Args:
        max_new_tokens: Limit of a completion, in tokens.
        temperature: Divides the logits; 0 takes the most probable token (greedy).
        top_p: Keep the most probable tokens that together hold this mass; 1 keeps all.
        top_k: Keep this many most probable tokens; 0 keeps all.
        min_p: Keep tokens at least this share as probable as the most probable one; 0 keeps all.
        repetition_penalty: Logits of tokens that stand in the prompt or in the completion so far are divided by it
            where they are positive and multiplied where negative (arXiv:1909.05858, section 4.1); 1 changes none.
        seed: Of the noise.
        stop: Strings that end a completion; the text is cut before the first of them.
        tie_margin: Distance in logit units below which a step is decided again by the row alone. None: 1e-3 in float32,
            0 (never) in other dtypes, where the batch size may change a completion.

    The order is that of transformers: repetition penalty (in greedy decoding too), temperature, top_k, top_p, min_p.
    """

    max_new_tokens: int = 256
    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 42
    stop: tuple[str, ...] = ()
    tie_margin: float | None = None

    def __post_init__(self) -> None:
        def refuse(name: str, allowed: str) -> None:
            raise UserError(f"{name}={getattr(self, name)!r} is not possible. Set it to {allowed}.")

        if self.max_new_tokens < 1:
            refuse("max_new_tokens", "at least 1 token")
        if not (0 <= self.temperature < math.inf):
            refuse("temperature", "0 (greedy) or a positive number")
        if not 0 < self.top_p <= 1:
            refuse("top_p", "a share above 0, at most 1 (1 keeps every token)")
        if self.top_k < 0:
            refuse("top_k", "0 (keeps every token) or a positive number of tokens")
        if not 0 <= self.min_p <= 1:
            refuse("min_p", "a share from 0 (keeps every token) to 1")
        if not 0 < self.repetition_penalty < math.inf:
            refuse("repetition_penalty", "a number above 0 (1 penalises nothing, more makes repetition rarer)")
        if self.tie_margin is not None and self.tie_margin < 0:
            refuse("tie_margin", "0 (never decide again) or a positive distance in logit units")
        if isinstance(self.stop, str) or "" in self.stop:
            refuse("stop", "a list of strings, none of them empty")

    def margin(self, dtype: torch.dtype) -> float:
        """The tie margin in force for a model of this dtype, in logit units."""
        if self.tie_margin is not None:
            return self.tie_margin
        return TIE_MARGIN if dtype == torch.float32 else 0.0


def penalise(logits: Tensor, history: Tensor, penalty: float) -> Tensor:
    """Logits ``[b, v]`` with those of the tokens in ``history`` ``[b, n]`` made smaller; a new tensor.

    A token counts once, however often it stands there, so a row that is shorter than others is filled up with any
    token of its own.
    """
    scores = logits.gather(1, history)
    return logits.scatter(1, history, torch.where(scores < 0, scores * penalty, scores / penalty))


def choose_tokens(
    logits: Tensor, params: SamplingParams, keys: Tensor, margin: float = 0.0, history: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Draw one token a row.

    Args:
        logits: ``[b, v]`` of the next token.
        params: Decoding settings.
        keys: `noise.step_keys`, ``[b, 2]`` int32; not used when greedy.
        margin: Tie margin in logit units; 0 finds no ties.
        history: Tokens of prompt and completion so far, ``[b, n]`` int64, as `penalise` takes them; needed where
            ``repetition_penalty`` is not 1.

    Returns:
        Token ids ``[b]`` int64, and ``[b]`` bool: whether logits each moved by at most ``margin / 2`` could have given
        another token, because the two best noisy logits or a filter's boundary lie within the margin.
    """
    logits = logits.float()
    if (penalty := params.repetition_penalty) != 1:
        if history is None:
            raise ValueError(f"repetition_penalty={penalty} needs the history of the rows.")
        logits = penalise(logits, history, penalty)
        margin *= max(penalty, 1 / penalty)  # by so much at most it has spread logits that were as close as the margin
    if params.temperature == 0:
        return _best(logits, margin)
    if params.top_p >= 1 and params.top_k == 0 and params.min_p == 0:
        return _choose_unfiltered(logits, params.temperature, keys, margin)
    vocab_size = logits.shape[-1]
    first = min(max(CANDIDATES[0], params.top_k + 16), vocab_size)
    tokens, close, short = _choose_among(first, logits, params, keys, margin)
    for k in (CANDIDATES[1], vocab_size):  # rows whose filter reaches beyond the candidates: look at more of them
        if not short.any():
            break
        k = min(max(k, first), vocab_size)
        rows = short.nonzero().squeeze(1)
        tokens[rows], close[rows], short[rows] = _choose_among(k, logits[rows], params, keys[rows], margin)
    return tokens, close


def _choose_among(
    k: int, logits: Tensor, params: SamplingParams, keys: Tensor, margin: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`choose_tokens` among the k largest logits; third, ``[b]`` bool: whether k was too small to be sure."""
    values, candidates = torch.topk(logits, k, dim=-1)
    kept, possible, certain = _filter(values, logits, params, margin)
    noisy = values / params.temperature + gumbel_noise(keys, candidates, logits.shape[-1])
    winner = noisy.masked_fill(~kept, -math.inf).argmax(-1, keepdim=True)
    close = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    if margin > 0:
        rivals = noisy.masked_fill(~possible, -math.inf)
        wins = (noisy.gather(1, winner) >= rivals.amax(-1, keepdim=True)) & certain.gather(1, winner)
        close = (_gap(rivals) * params.temperature < margin) | ~wins.squeeze(1)
    short = possible[:, -1] if k < logits.shape[-1] else torch.zeros_like(close)
    return candidates.gather(1, winner).squeeze(1), close, short


def _best(scores: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    tokens = scores.argmax(-1)
    close = _gap(scores) < margin if margin > 0 else torch.zeros_like(tokens, dtype=torch.bool)
    return tokens, close


def _gap(scores: Tensor) -> Tensor:
    """Difference of the two largest scores of each row, ``[b]``; infinite where there is only one."""
    top = torch.topk(scores, 2, dim=-1).values if scores.shape[-1] > 1 else torch.cat([scores, scores - math.inf], -1)
    return top[:, 0] - top[:, 1]


def _choose_unfiltered(logits: Tensor, temperature: float, keys: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    vocab_size = logits.shape[-1]
    rows = max(1, CHUNK // vocab_size) if logits.device.type == "cpu" else len(logits)
    room = torch.empty(2, rows, vocab_size, dtype=torch.int32, device=logits.device)
    tokens, close = [], []
    for start in range(0, len(logits), rows):
        part = keys[start : start + rows]
        noise = gumbel_noise(part, None, vocab_size, room[:, : len(part)])
        noisy = noise.add_(logits[start : start + rows], alpha=1 / temperature)
        winner = noisy.argmax(-1, keepdim=True)
        tokens.append(winner.squeeze(1))
        if margin > 0:
            best = noisy.gather(1, winner)
            second = noisy.scatter_(1, winner, -math.inf).amax(-1, keepdim=True)  # far faster than topk on a CPU
            close.append((best - second < margin / temperature).squeeze(1))
    chosen = torch.cat(tokens)
    return chosen, torch.cat(close) if margin > 0 else torch.zeros_like(chosen, dtype=torch.bool)


def _filter(values: Tensor, logits: Tensor, params: SamplingParams, margin: float) -> tuple[Tensor, Tensor, Tensor]:
    """Which candidates pass top_k, top_p and min_p: as the logits stand, possibly, and certainly (each ``[b, k]``).

    "Possibly" and "certainly" are over all logits that differ by at most ``margin / 2`` each.

    Args:
        values: The largest logits of each row, falling, ``[b, k]``.
        logits: All of them, ``[b, v]``; only their mass is used.
    """
    temperature = params.temperature
    kept = torch.ones_like(values, dtype=torch.bool)
    possible, certain = kept.clone(), kept.clone()
    if 0 < params.top_k < logits.shape[-1]:
        kth, following = values[:, params.top_k - 1 : params.top_k], values[:, params.top_k : params.top_k + 1]
        kept = values >= kth
        possible = values >= kth - margin
        certain = kept & (values >= following + margin)
    if params.top_p < 1:
        if 0 < params.top_k < logits.shape[-1]:
            probability = torch.softmax((values / temperature).masked_fill(~kept, -math.inf), -1)
        else:
            best = values[:, :1] / temperature
            total = torch.softmax(logits / temperature, -1).amax(-1, keepdim=True)  # far faster than logsumexp on a CPU
            probability = (values / temperature - best).exp() * total
        cumulative = probability.cumsum(-1)
        above = cumulative - probability  # mass of the tokens that are more probable
        above[:, 0] = 0  # the most probable token is always kept
        kept = kept & (above < params.top_p)
        if margin > 0:
            rising = -values
            before = torch.cat([torch.zeros_like(cumulative[:, :1]), cumulative], 1)  # mass of the first n
            least = before.gather(1, torch.searchsorted(rising, rising - margin))  # those above in any case
            most = before.gather(1, torch.searchsorted(rising, rising + margin, right=True)) - probability
            slack = margin / temperature * (above * (1 - above)).clamp(min=0) + 1e-6
            possible = possible & (least - slack < params.top_p)
            certain = certain & ((most + slack < params.top_p) | (most <= 0))
        else:
            possible = kept
    if params.min_p > 0:
        floor = values[:, :1] + temperature * math.log(params.min_p)
        kept = kept & (values >= floor)
        possible = possible & (values >= floor - margin)
        certain = certain & (values >= floor + margin)
    return kept, possible, certain
