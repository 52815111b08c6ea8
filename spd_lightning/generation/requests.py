"""Stage 2: one completion, asked for and answered, and in which batches they are decoded.

Batches are formed from the whole list in one canonical order (length, then id, then sample) before they are dealt to
processes. A batch is the unit of work and of resume, so any number of processes does the same arithmetic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from spd_lightning.errors import UserError
from spd_lightning.generation.text import common_start
from spd_lightning.model.anatomy import context_of
from spd_lightning.model.chat_template import PromptFormat, plain_prompt, prompt_turns, render_prompts

DEFAULT_BATCH_SIZE = 64  # completions decoded together when neither a batch size nor a token budget is given

Truncation = Literal["middle", "start", "end"]  # the part of a text that is cut away where it is too long

_MARK = "\ue000"  # for private use in Unicode: no prompt begins or ends with it


@dataclass(frozen=True)
class Request:
    """One completion to draw: the prompt's text and token ids, and which of its samples."""

    id: str
    prompt: str
    prompt_ids: tuple[int, ...]
    sample: int = 0


@dataclass(frozen=True)
class Generation:
    """One completion.

    Attributes:
        token_ids: The sampled tokens, the end-of-sequence token included where the model stopped by it.
        completion: What they add to the prompt's text (see `text`), without special tokens, cut before a stop string.
        num_tokens: Length of ``token_ids``.
        finish_reason: ``stop`` (end of sequence or stop string) or ``length`` (max_new_tokens reached).
        seed: Of the sampling settings.
    """

    id: str
    sample: int
    prompt: str
    completion: str
    token_ids: tuple[int, ...]
    num_tokens: int
    finish_reason: Literal["stop", "length"]
    seed: int

    def record(self) -> dict[str, Any]:
        """The corpus line as a dict: JSON types, keys in the order of the file."""
        return asdict(self) | {"token_ids": list(self.token_ids)}


def truncate(
    ids: Sequence[int], max_length: int, side: Truncation = "middle", keep_prefix: int = 0, keep_suffix: int = 0
) -> tuple[int, ...]:
    """Token ids cut down to a limit; what is short enough stays as it is.

    >>> truncate(range(10), 6, "middle", keep_prefix=1, keep_suffix=1)
    (0, 1, 2, 7, 8, 9)

    Args:
        ids: The tokens of a text.
        max_length: Most tokens that may be left, at least 1.
        side: What is cut AWAY: tokens in the ``middle`` (its two halves stay), at the ``start``, or at the ``end``.
        keep_prefix: So many tokens at the beginning are never cut: special tokens, what a chat template writes before
            the user's text.
        keep_suffix: So many tokens at the end are never cut: what a chat template writes behind the user's text, a
            continuation that is to be scored.

    Raises:
        UserError: For another side, or a limit that leaves no token between what must be kept.
    """
    _check_side(side)
    ids = tuple(ids)
    cut = len(ids) - max_length
    if cut <= 0:
        return ids
    room = max_length - keep_prefix - keep_suffix
    if room < 1:
        raise UserError(
            f"A limit of {max_length} tokens leaves no room for text: special tokens and chat template take "
            f"{keep_prefix + keep_suffix} of them. Raise the limit (of training prompts: max_prompt_length, "
            "--data.max_prompt_length)."
        )
    before = keep_prefix + {"start": 0, "middle": room // 2, "end": room}[side]
    return ids[:before] + ids[before + cut :]


def _check_side(side: str) -> None:
    if side not in ("middle", "start", "end"):
        raise UserError(f"truncation={side!r} is not known. Set --data.truncation to middle, start or end.")


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as the model is to read it.

    Attributes:
        ids: Its tokens.
        prefix: So many of them stand before the user's text: special tokens, the head of the chat template.
        suffix: So many stand behind it: the start of the answer in the chat template.
    """

    ids: tuple[int, ...]
    prefix: int = 0
    suffix: int = 0

    def cut(self, max_length: int, side: Truncation = "middle") -> tuple[int, ...]:
        """The tokens within a limit; only the user's text is ever cut (see `truncate`)."""
        return truncate(self.ids, max_length, side, self.prefix, self.suffix)


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, prompts: list[str], prompt_format: PromptFormat = "plain", system: str = ""
) -> list[tuple[int, ...]]:
    """Token ids of prompts as the model is to read them; see `encode_with_template`."""
    return [encoded.ids for encoded in encode_with_template(tokenizer, prompts, prompt_format, system)]


def encode_with_template(
    tokenizer: PreTrainedTokenizerBase, prompts: list[str], prompt_format: PromptFormat = "plain", system: str = ""
) -> list[EncodedPrompt]:
    """Prompts as token ids, with the bounds of the user's text in them.

    Args:
        tokenizer: The model's, a fast one.
        prompts: Texts, without a chat template.
        prompt_format: ``plain`` encodes the text with the special tokens that the tokenizer puts before any text (those
            that it puts behind, an end of sequence, are left out: the text goes on); ``chat`` makes it the user's turn
            of the tokenizer's chat template, followed by the start of the answer.
        system: System prompt: a turn of its own in the template, a paragraph before plain text; empty for none.

    Raises:
        UserError: If ``chat`` is asked of a tokenizer without a template.
    """
    if prompt_format not in ("plain", "chat"):
        raise UserError(f"prompt_format={prompt_format!r} is not known. Set --data.prompt_format to plain or chat.")
    if not prompts:
        return []
    if prompt_format == "plain":
        texts = [plain_prompt(prompt, system) for prompt in prompts]
        encoded = tokenizer(texts, return_special_tokens_mask=True, verbose=False)
        return [
            _open_ended(tokenizer, ids, mask) for ids, mask in zip(encoded["input_ids"], encoded["special_tokens_mask"])
        ]
    if not tokenizer.chat_template:
        raise UserError("prompt_format='chat', but the tokenizer has no chat template. Set --data.prompt_format plain.")
    turns = [prompt_turns(prompt, system) for prompt in [_MARK, *prompts]]
    marked, *rendered = render_prompts(tokenizer, turns)
    encoded = tokenizer(rendered, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    found = []
    for text, ids, offsets in zip(rendered, encoded["input_ids"], encoded["offset_mapping"]):
        start = common_start(text, marked)
        end = max(start, len(text) - common_start(text[::-1], marked[::-1]))
        prefix = next((i for i, span in enumerate(offsets) if span[1] > start), len(ids))
        behind = (i for i, span in enumerate(reversed(offsets[prefix:])) if span[0] < end)
        found.append(EncodedPrompt(tuple(ids), prefix, next(behind, len(ids) - prefix)))
    return found


def _open_ended(tokenizer: PreTrainedTokenizerBase, ids: list[int], special: list[int]) -> EncodedPrompt:
    """A plain text without the special tokens behind it. ``special`` is 1 for every token that is not of the text."""
    if 0 not in special:  # an empty text: what stands before any text, were there one
        alone = ids[:1] if ids[:1] != [tokenizer.eos_token_id] or ids[:1] == [tokenizer.bos_token_id] else []
        return EncodedPrompt(tuple(alone), len(alone))
    return EncodedPrompt(tuple(ids[: len(ids) - special[::-1].index(0)]), special.index(0))


def build_requests(
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[tuple[str, str]],
    num_generations: int = 1,
    max_prompt_length: int | None = None,
    prompt_format: PromptFormat = "plain",
    on_long: Literal["truncate", "reject"] = "truncate",
    truncation: Truncation = "middle",
    system: str = "",
) -> tuple[list[Request], dict[str, int]]:
    """Requests for prompts, ``num_generations`` for each.

    Args:
        tokenizer: The model's.
        prompts: ``(example id, text)``.
        num_generations: Completions per prompt.
        max_prompt_length: Limit of a prompt in tokens; None for no limit.
        prompt_format: See `encode_with_template`.
        on_long: A longer prompt is cut to the limit (``truncate``) or left out (``reject``).
        truncation: The part of the user's text that is cut away (see `truncate`); special tokens and template stay.
        system: See `encode_with_template`.

    Returns:
        The requests in the order of the prompts, and counts: prompts, truncated, rejected, requests.

    Raises:
        UserError: For no prompts, an id that occurs twice, an empty prompt, or if every prompt is rejected.
    """
    if on_long not in ("truncate", "reject"):
        raise UserError(f"on_long={on_long!r} is not known. Set it to truncate or reject.")
    _check_side(truncation)
    if num_generations < 1 or (max_prompt_length is not None and max_prompt_length < 1):
        raise UserError(
            f"num_generations={num_generations} and max_prompt_length={max_prompt_length} must be at least 1."
        )
    if not prompts:
        raise UserError(
            "There are no prompts to complete. Choose a task with rows, or raise num_prompts (--data.num_prompts)."
        )
    twice = [i for i, n in Counter(i for i, _ in prompts).items() if n > 1]
    if twice:
        raise UserError(
            f"{len(twice)} example ids occur more than once, e.g. {twice[0]!r}. Give every row an id of its own."
        )
    counts = {"prompts": len(prompts), "truncated": 0, "rejected": 0}
    requests = []
    texts = [prompt for _, prompt in prompts]
    for (example_id, prompt), encoded in zip(prompts, encode_with_template(tokenizer, texts, prompt_format, system)):
        ids = encoded.ids
        if not ids:
            raise UserError(f"The prompt of example {example_id!r} has no tokens. Give it some text, or remove it.")
        if max_prompt_length is not None and len(ids) > max_prompt_length:
            if on_long == "reject":
                counts["rejected"] += 1
                continue
            counts["truncated"] += 1
            ids = encoded.cut(max_prompt_length, truncation)
        requests += [Request(example_id, prompt, ids, sample) for sample in range(num_generations)]
    if not requests:
        raise UserError(
            f"All {len(prompts)} prompts are longer than max_prompt_length={max_prompt_length} tokens and were "
            "rejected. Raise it, or set long_prompts (--data.long_prompts) truncate."
        )
    counts["requests"] = len(requests)
    return requests, counts


def form_batches(
    requests: list[Request],
    batch_size: int | None = None,
    token_budget: int | None = None,
    max_new_tokens: int = 0,
) -> list[list[Request]]:
    """Batches of the whole list in canonical order: prompt length, then id, then sample.

    Args:
        requests: Every request of the corpus, whatever is already done and however many processes there are.
        batch_size: Most rows of a batch; None for `DEFAULT_BATCH_SIZE`, or no limit under a token budget.
        token_budget: Most positions of a batch, padded prompts and new tokens together; None for no limit. A single row
            that exceeds it is a batch of its own.
        max_new_tokens: Limit of a completion, counted against the budget.

    Raises:
        UserError: For a batch size or a budget below 1.
    """
    for name, value in (("batch_size", batch_size), ("token_budget", token_budget)):
        if value is not None and value < 1:
            raise UserError(f"{name}={value} is not possible. Set it to at least 1.")
    if batch_size is None:
        batch_size = DEFAULT_BATCH_SIZE if token_budget is None else len(requests)
    batches: list[list[Request]] = []
    for request in sorted(requests, key=lambda r: (len(r.prompt_ids), r.id, r.sample)):
        # in this order the newest row is the longest, so it sets the padded width of its batch
        rows = len(batches[-1]) + 1 if batches else 1
        width = len(request.prompt_ids) + max_new_tokens
        if batches and rows <= batch_size and (token_budget is None or rows * width <= token_budget):
            batches[-1].append(request)
        else:
            batches.append([request])
    return batches


def check_context(config: Any, requests: list[Request], max_new_tokens: int) -> None:
    """Refuse prompts that do not fit into a model's context together with what is to be generated.

    Args:
        config: The transformers config of the model.
        requests: What is asked.
        max_new_tokens: Limit of a completion.

    Raises:
        UserError: Naming the longest prompt.
    """
    context = context_of(config)
    if context is None or not requests:
        return
    longest = max(requests, key=lambda r: len(r.prompt_ids))
    if len(longest.prompt_ids) + max_new_tokens > context:
        raise UserError(
            f"The prompt of example {longest.id!r} has {len(longest.prompt_ids)} tokens; with max_new_tokens="
            f"{max_new_tokens} that exceeds the model's context of {context}. Lower max_new_tokens, or limit prompts "
            f"to {max(context - max_new_tokens, 1)} tokens."
        )
