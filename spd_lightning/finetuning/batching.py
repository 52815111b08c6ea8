"""Stage 3, batches of like length without waste, and a loader that can be resumed.

A *global batch* is what one optimiser step sees. Global batches are formed from the whole list of texts first, then
their rows are dealt to micro-batches (gradient accumulation) and processes, and every micro-batch carries the number
of loss tokens of its whole global batch. So any number of processes does the same optimisation: the loss is the sum of
token losses over the sum of tokens, not a mean of means.

Shapes: b rows of a micro-batch, s tokens of its longest row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from spd_lightning.errors import UserError
from spd_lightning.finetuning.texts import TrainingText
from spd_lightning.model.anatomy import context_of
from spd_lightning.seeds import seed_of

IGNORE_INDEX = -100
POOL = 16  # texts are sorted by length within shuffled pools of this many batches
ROWS_PER_PACK = 4  # a packed row holds at most this many times max_length tokens
BATCH_SIZE = 4  # texts per optimiser step, as published
MAX_LENGTH = 256  # tokens of a text, as published
LossOn = Literal["all", "question", "completion"]


@dataclass(frozen=True)
class _Row:
    """A text as it is trained on: ids cut at max_length, and how many first tokens carry no loss."""

    input_ids: tuple[int, ...]
    num_without_loss: int

    @property
    def loss_tokens(self) -> int:
        return len(self.input_ids) - self.num_without_loss


def collate(rows: list[_Row], pad_token_id: int, packing: bool = False, pack_to: int = 1024) -> dict[str, Any]:
    """Put rows into one micro-batch.

    Args:
        rows: May be empty: a process without a share still takes part, with one row of padding and no loss.
        pad_token_id: Fills the right end of shorter rows; padding has no label.
        packing: Put several texts into a row, with positions that start anew and attention within each text.
        pack_to: Tokens that a packed row holds at most.

    Returns:
        ``input_ids`` and ``labels`` [b, s] (a label is the token itself, IGNORE_INDEX where it carries no loss; a
        text's first token never does); with packing also ``position_ids`` and ``segment_ids`` [b, s] (-1 for padding).
    """
    groups: list[list[_Row]] = []
    if packing:
        for row in rows:  # in the order given: first row that has room
            length = len(row.input_ids)
            room = (g for g in groups if sum(len(r.input_ids) for r in g) + length <= pack_to)
            group = next(room, None)
            if group is None:
                groups.append([row])
            else:
                group.append(row)
    else:
        groups = [[row] for row in rows]
    width = max((sum(len(r.input_ids) for r in g) for g in groups), default=1)
    shape = (max(len(groups), 1), width)
    batch = {
        "input_ids": torch.full(shape, pad_token_id),
        "labels": torch.full(shape, IGNORE_INDEX),
        "position_ids": torch.zeros(shape, dtype=torch.long),
        "segment_ids": torch.full(shape, -1),
    }
    for i, group in enumerate(groups):
        start = 0
        for j, row in enumerate(group):
            end = start + len(row.input_ids)
            batch["input_ids"][i, start:end] = torch.tensor(row.input_ids)
            batch["labels"][i, start + row.num_without_loss : end] = torch.tensor(row.input_ids[row.num_without_loss :])
            batch["position_ids"][i, start:end] = torch.arange(end - start)
            batch["segment_ids"][i, start:end] = j
            start = end
    if not packing:
        del batch["position_ids"], batch["segment_ids"]
    return {**batch, "num_tokens": sum(len(r.input_ids) for r in rows), "num_padded": shape[0] * shape[1]}


def packed_mask(segment_ids: Tensor) -> Tensor:
    """Which position may attend to which in packed rows: earlier ones of the same text, and always itself.

    Args:
        segment_ids: Text of each token, [b, s]; -1 for padding.

    Returns:
        Bool, [b, 1, s, s], true where attention is allowed.
    """
    same = segment_ids[:, :, None] == segment_ids[:, None, :]
    return same.tril()[:, None]


class TextLoader:
    """Micro-batches of one process, in an order fixed by the seed; it can be saved and resumed at any batch.

    An epoch's order is drawn from (seed, epoch) on the whole list of texts, so it does not depend on the number of
    processes. Call `set_epoch` before each pass (SPDFineTuningModule does).

    Args:
        texts: The whole list, the same on every process.
        batch_size: Texts per optimiser step, over all processes and accumulation steps.
        max_length: Longer texts lose their end, tokens.
        seed: Of the order.
        rank: This process.
        world_size: Number of processes.
        pad_token_id: See `collate`.
        packing: See `collate`.
        loss_on: ``all`` tokens but a text's first, those behind the prompt's solved examples (``question``), or the
            ``completion`` alone.
        accumulate: Micro-batches per optimiser step (the trainer's ``accumulate_grad_batches``).
        shuffle: False keeps one order, by length.

    Attributes:
        num_tokens: Real tokens of a pass.
        num_truncated: Texts that ``max_length`` cut.
        num_without_loss: Texts that have no token with a loss left (dropped).

    Raises:
        UserError: If no text is left, or a number is below one.
    """

    def __init__(
        self,
        texts: list[TrainingText],
        batch_size: int,
        max_length: int,
        seed: int,
        rank: int,
        world_size: int,
        pad_token_id: int,
        packing: bool = False,
        loss_on: LossOn = "all",
        accumulate: int = 1,
        shuffle: bool = True,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} texts is too few. Set --model.batch_size to 1 or more.")
        if max_length < 2:
            raise UserError(f"max_length={max_length} tokens leaves no loss. Set --model.max_length to 2 or more.")
        rows = [_encode(text, max_length, loss_on) for text in texts]
        self.rows = [row for row in rows if row.loss_tokens > 0]
        if not self.rows:
            raise UserError(
                f"None of the {len(texts)} training texts has a token to learn from within max_length={max_length} "
                f"(loss_on={loss_on!r}). Raise --model.max_length, or set --model.loss_on=all."
            )
        self.num_tokens = sum(len(row.input_ids) for row in self.rows)
        self.num_truncated = sum(len(t.prompt_ids) + len(t.completion_ids) > max_length for t in texts)
        self.num_without_loss = len(rows) - len(self.rows)
        self.max_token_id = max(max(row.input_ids) for row in self.rows)
        self.batch_size, self.max_length, self.seed, self.shuffle = batch_size, max_length, seed, shuffle
        self.rank, self.world_size, self.accumulate = rank, world_size, accumulate
        self.pad_token_id, self.packing = pad_token_id, packing
        self.epoch = 0
        self.batch_index = 0  # micro-batches handed out in this epoch

    def __len__(self) -> int:
        """Micro-batches of a pass; the same on every process."""
        return -(-len(self.rows) // self.batch_size) * self.accumulate

    def figures(self, batches: float) -> dict[str, int]:
        """What of the texts a training reads that takes so many micro-batches of a pass (see `training_health`)."""
        read = {"texts": len(self.rows), "cut": self.num_truncated, "left_out": self.num_without_loss}
        return read | ({"batches": int(batches), "of_batches": len(self)} if batches < len(self) else {})

    def check(self, accumulate: int, model: PreTrainedModel, model_name_or_path: str) -> None:
        """Refuse batches that do not fit the trainer or the model.

        Args:
            accumulate: The trainer's accumulate_grad_batches.
            model: The model, also with an adapter.
            model_name_or_path: Its name.

        Raises:
            UserError: For what does not fit.
        """
        if self.accumulate != accumulate:
            raise UserError(
                f"The training batches were made for accumulate={self.accumulate}, but "
                f"trainer.accumulate_grad_batches={accumulate}. Pass the trainer's value to make_train_loader."
            )
        longest, context = max(len(row.input_ids) for row in self.rows), context_of(model.config)
        if context is not None and longest > context:
            raise UserError(
                f"A training text has {longest} tokens within max_length={self.max_length}, but {model_name_or_path} "
                f"takes {context}. Set --model.max_length to {context}."
            )
        vocabulary: int = model.get_input_embeddings().num_embeddings  # type: ignore[assignment]
        if self.max_token_id >= vocabulary:
            raise UserError(
                f"The corpus holds token id {self.max_token_id}, but the vocabulary of {model_name_or_path} has "
                f"{vocabulary} rows: corpus and model do not belong together. Set model_name_or_path "
                "(--subspace.model_name_or_path) to the model that generated the corpus."
            )

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass; the epoch of a state just loaded keeps its place."""
        if epoch != self.epoch:
            self.epoch, self.batch_index = epoch, 0

    def plan(self, epoch: int) -> list[list[int]]:
        """The global batches of an epoch, as indices into ``rows``: each of like lengths, in shuffled order."""
        lengths = [len(row.input_ids) for row in self.rows]
        size = self.batch_size
        if not self.shuffle:
            order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
            return [order[i : i + size] for i in range(0, len(order), size)]
        generator = torch.Generator().manual_seed(seed_of("order of texts", self.seed, epoch))
        order = torch.randperm(len(lengths), generator=generator).tolist()
        pool = size * POOL
        batches = []
        for start in range(0, len(order), pool):
            ordered = sorted(order[start : start + pool], key=lambda i: -lengths[i])
            batches += [ordered[i : i + size] for i in range(0, len(ordered), size)]
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        plan = self.plan(self.epoch)
        start = self.batch_index if self.batch_index < len(self) else 0
        for index in range(start, len(self)):
            self.batch_index = index + 1
            yield self._micro_batch(plan[index // self.accumulate], index % self.accumulate)

    def _micro_batch(self, members: list[int], micro: int) -> dict[str, Any]:
        """This process's portion of a global batch: every (accumulate x world_size)-th row, so that all are alike."""
        own = members[micro * self.world_size + self.rank :: self.accumulate * self.world_size]
        batch = collate([self.rows[i] for i in own], self.pad_token_id, self.packing, ROWS_PER_PACK * self.max_length)
        total = sum(self.rows[i].loss_tokens for i in members)
        return {**batch, "global_loss_tokens": total, "micro": micro}

    def state_dict(self) -> dict[str, int]:
        """Where the pass stands, and what its order depends on. The number of processes may change on resume."""
        return {"epoch": self.epoch, "batch_index": self.batch_index, **self._facts()}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue at the batch after the last one handed out.

        Raises:
            UserError: If the texts, the batch size, the seed or the accumulation differ from the saved ones.
        """
        for name, value in self._facts().items():
            if state[name] != value:
                raise UserError(
                    f"The checkpoint was made with {name}={state[name]}, this run has {name}={value}: its place in the "
                    "data means nothing here. Use the settings it was made with, or start without ckpt_path "
                    "(--ckpt_path)."
                )
        self.epoch, self.batch_index = state["epoch"], state["batch_index"]

    def _facts(self) -> dict[str, int]:
        return {
            "num_texts": len(self.rows),
            "num_tokens": self.num_tokens,
            "batch_size": self.batch_size,
            "accumulate_grad_batches": self.accumulate,
            "seed": self.seed,
        }


def _encode(text: TrainingText, max_length: int, loss_on: LossOn) -> _Row:
    without_loss = {"all": 0, "question": text.solved, "completion": len(text.prompt_ids)}
    if loss_on not in without_loss:
        raise UserError(f"loss_on={loss_on!r} is not known. Set --model.loss_on to all, question or completion.")
    ids = (text.prompt_ids + text.completion_ids)[:max_length]
    skip = without_loss[loss_on]
    return _Row(ids, min(max(skip, 1), len(ids)))


def make_train_loader(
    texts: list[TrainingText],
    batch_size: int,
    max_length: int,
    seed: int,
    rank: int,
    world_size: int,
    pad_token_id: int,
    packing: bool = False,
    loss_on: LossOn = "all",
    accumulate: int = 1,
) -> TextLoader:
    """The loader of training batches; see `TextLoader`. ``accumulate`` is the trainer's accumulate_grad_batches."""
    return TextLoader(texts, batch_size, max_length, seed, rank, world_size, pad_token_id, packing, loss_on, accumulate)


def make_val_loader(
    texts: list[TrainingText],
    batch_size: int,
    max_length: int,
    rank: int,
    world_size: int,
    pad_token_id: int,
    loss_on: LossOn = "all",
) -> TextLoader:
    """The loader of held-out texts: by length, every text once over all processes, equally many batches on each."""
    return TextLoader(
        texts, batch_size * world_size, max_length, 0, rank, world_size, pad_token_id, loss_on=loss_on, shuffle=False
    )
