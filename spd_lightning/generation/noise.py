"""Stage 2: the noise of a draw, a function of (seed, example id, sample index, step, token) and of nothing else.

Gumbel noise from a counter-based generator: a row's key and a step give two words, a bijection scatters them over the
vocabulary, and the words become noise. `sampling` adds it to the logits.

Shapes: b rows, v vocabulary, k candidates.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import torch
from torch import Tensor

FINE = 2**18  # words so near the smallest one keep all their bits in float32; more than 9.7 of noise
SMALL = 2**12  # below it the steps of a word are too coarse, and a second word divides them; more than 13.9 of noise
BLOCK = 128  # words among which the smallest is looked for


def row_key(seed: int, example_id: str, sample: int) -> bytes:
    """The 16 bytes that a row's noise hangs on."""
    return hashlib.blake2b(f"{seed}\0{sample}\0{example_id}".encode(), digest_size=16).digest()


def step_keys(row_keys: list[bytes], step: int, device: torch.device | str = "cpu") -> Tensor:
    """Two 32-bit words per row for one step, ``[b, 2]`` int32."""
    counter = step.to_bytes(8, "little")
    joined = b"".join(hashlib.blake2b(counter, key=key, digest_size=8).digest() for key in row_keys)
    return torch.frombuffer(bytearray(joined), dtype=torch.int32).view(-1, 2).to(device)


def _signed(word: int) -> int:
    return word - 2**32 if word >= 2**31 else word


def _mix(x: Tensor, shifted: Tensor | None = None) -> Tensor:
    """A bijection of 32-bit words that scatters them (multiply, shift, xor), in place; int32 wraps around.

    ``shifted`` is memory of the same shape to work in: on a CPU, taking fresh memory costs more than the arithmetic.
    """
    shifted = torch.empty_like(x) if shifted is None else shifted
    for shift, factor in ((16, 0x7FEB352D), (15, _signed(0x846CA68B)), (16, 1)):
        torch.bitwise_right_shift(x, shift, out=shifted)
        x ^= shifted.bitwise_and_(2 ** (32 - shift) - 1)  # the mask makes the arithmetic shift a logical one
        if factor != 1:
            x *= factor
    return x


@lru_cache(maxsize=4)
def _vocabulary_hash(vocab_size: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        tokens = torch.arange(vocab_size, dtype=torch.int32, device=device)
        return _mix(tokens * _signed(0x9E3779B9) + 0x632BE5AB)


def gumbel_noise(keys: Tensor, tokens: Tensor | None, vocab_size: int, room: Tensor | None = None) -> Tensor:
    """Standard Gumbel noise of tokens at a step.

    Args:
        keys: `step_keys`, ``[b, 2]`` int32.
        tokens: Token ids ``[b, k]``, or None for the whole vocabulary in order.
        vocab_size: Number of tokens, v.
        room: Memory to work in, int32 ``[2, b, k]`` (or ``[2, b, v]``), for use again and again; the noise lies in it.

    Returns:
        float32 ``[b, k]`` (or ``[b, v]``); the value of a token does not depend on which others are asked for.
    """
    table = _vocabulary_hash(vocab_size, keys.device)
    hashed = table[tokens] if tokens is not None else table
    if room is None:
        room = torch.empty(2, len(keys), hashed.shape[-1], dtype=torch.int32, device=keys.device)
    words = first_words(hashed, keys, room)
    noise = body_noise(words, room[1].view(torch.float32))
    rare = _places_below(words, FINE - 2**31)  # 6 of 100,000
    row = rare // words.shape[1]
    own = hashed[rare % words.shape[1]] if tokens is None else hashed.view(-1)[rare]
    noise.view(-1)[rare] = tail_noise(words.view(-1)[rare], second_words(own, keys[row]))
    return noise


def _places_below(words: Tensor, limit: int) -> Tensor:
    """Indices into the flat words of those below a limit; looks block by block, since few blocks hold one."""
    flat = words.view(-1)
    whole = len(flat) // BLOCK * BLOCK
    blocks = flat[:whole].view(-1, BLOCK)
    some = (blocks.amin(1) < limit).nonzero().squeeze(1)
    block, inside = (blocks[some] < limit).nonzero(as_tuple=True)
    rest = (flat[whole:] < limit).nonzero().squeeze(1)
    return torch.cat([some[block] * BLOCK + inside, rest + whole])


def first_words(hashed: Tensor, keys: Tensor, room: Tensor) -> Tensor:
    """The words that noise is made of: hashes ``[v]`` or ``[b, v]`` under keys ``[b, 2]``; int32, ``room[0]``."""
    words, shifted = room
    torch.add(hashed, keys[:, :1], out=words)
    _mix(words, shifted)
    words ^= keys[:, 1:]
    return _mix(words, shifted)


def second_words(hashed: Tensor, keys: Tensor) -> Tensor:
    """Words of their own for where the first ones are small: hashes ``[n]`` under keys ``[n, 2]``, ``[n]`` int32."""
    return _mix(_mix((hashed ^ _signed(0xB5297A4D)) + keys[:, 1]) ^ keys[:, 0])


def body_noise(words: Tensor, out: Tensor) -> Tensor:
    """Noise of first words in ``out``, float32; larger for smaller words, too coarse below `FINE` of the smallest."""
    uniform = out.copy_(words).mul_(2.0**-32).add_(0.5)
    return uniform.clamp_(2.0**-33, 1 - 2.0**-24).neg_().log1p_().neg_().log_().neg_()


def tail_noise(words: Tensor, more: Tensor) -> Tensor:
    """Noise of first words below `FINE`, float32: exact to its dtype, with the second word below `SMALL` up to 45.

    Args:
        words: First words, ``[n]`` int32.
        more: Second words, ``[n]`` int32.
    """
    steps = words ^ -(2**31)  # above the smallest word
    fraction = ((more.to(torch.int64) & 0xFFFFFFFF).to(torch.float32) + 0.5) * 2.0**-32
    uniform = (steps + torch.where(steps < SMALL, fraction, 0.5)) * 2.0**-32
    return uniform.neg_().log1p_().neg_().log_().neg_()
