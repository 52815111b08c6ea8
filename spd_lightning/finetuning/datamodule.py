"""Stage 3's LightningDataModule: a finished corpus as batches of training and of held-out texts.

In a notebook, `Trainer().fit` with it first generates what is missing; `generation.recipe` holds those options.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info

from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.errors import UserError
from spd_lightning.finetuning.batching import BATCH_SIZE, MAX_LENGTH, TextLoader, make_train_loader, make_val_loader
from spd_lightning.finetuning.keep import Keep, check_keep, keep_of
from spd_lightning.finetuning.texts import TrainingText
from spd_lightning.finetuning.training_set import training_set
from spd_lightning.generation.corpus import Corpus, sole_writer
from spd_lightning.generation.health import corpus_lines, refuse_few
from spd_lightning.generation.methods import Method
from spd_lightning.generation.module import SelfGenerationModule
from spd_lightning.generation.questions import Questions
from spd_lightning.generation.recipe import Recipe, finish, finished, generate_with_vllm, open_corpus
from spd_lightning.generation.requests import DEFAULT_BATCH_SIZE, Truncation
from spd_lightning.model.load import Dtype, load_tokenizer
from spd_lightning.notebook import Shown
from spd_lightning.options import check_options
from spd_lightning.tasks.mix import Tasks
from spd_lightning.tasks.task import Rows


class SelfGenerationDataModule(Shown, LightningDataModule):
    """Self-generated training data: which prompts, how they are answered, and batches of the result.

    Args:
        model_name_or_path: The model that answers: hub id, folder, .gguf file, smollm2-135m-instruct or gemma3-270m.
        task: Task whose training split gives the prompts; several as a list, or with weights (see subspace.task).
        task_file: Rows of ``task: custom``: a path, or {path, columns, score, normalise}; see docs/own_data.md.
        data_dir: Folder of data sets; null takes ``SPD_DATA_DIR``, else the hub.
        method: ``base`` (generate and train nothing), ``psr`` (plain sampling: top_p and min_p are not used, top_k is),
            ``ssd`` (truncated sampling), ``spd`` (ssd's sampling under the projection) or ``filtered`` (ssd with
            ``keep: correct``: uses an external signal, an upper bound for comparison).
        keep: Completions that are trained on, those dropped made up for by repeats. ``all``; ``correct`` (the gold
            answer agrees), ``wrong``; ``majority`` (of num_generations samples, 8 say, one with the most frequent
            answer, no ties; numbers and letters only); ``shuffled`` (every prompt gets another's); ``renumbered``
            (numbers not in the question become others of their length); ``drop_shortest`` (all but a tenth).
        rows: Which rows are calibrated and trained on: ``first`` (the training split as it stands), or ``reference``
            (those of the authors' script: MMLU's auxiliary_train shuffled, with dev in its place where it is absent,
            and MBPP's text untouched; gsm8k, mbpp and mmlu only).
        num_prompts: The first so many training prompts, of several tasks each by its weight; null for all there are.
        num_generations: Completions per prompt.
        max_new_tokens: Limit of a completion in tokens; null for its task's own.
        max_prompt_length: Limit of a prompt in tokens; longer ones are counted.
        long_prompts: Cut those to the limit (``truncate``), or leave them out (``reject``).
        truncation: The part of the user's text that is cut away: its ``middle``, its ``start``, or its ``end`` (as
            published; what is asked last, such as ``Answer:``, is then lost). Special tokens and chat template stay.
        temperature: Divides the logits; 0 is greedy.
        top_p: Smallest set of tokens with at least this probability is kept (nucleus); 1 keeps all.
        top_k: Number of most likely tokens kept; 0 keeps all.
        min_p: Tokens at least this share as likely as the most likely one are kept; 0 keeps all.
        repetition_penalty: Makes tokens that prompt or completion hold already less likely, as in transformers, before
            the temperature and in greedy decoding too: 1.1 divides a positive logit by 1.1. Null or 1 for none; a
            model's own value (generation_config.json) is never taken unasked.
        stop: Strings that end a completion, e.g. ``["\\nQuestion:"]``; null for none, as published: what is trained is
            what the model wrote until it ended by itself or at max_new_tokens. What is judged (``filtered``, the share
            that holds an answer) is cut where evaluation cuts, always.
        stop_eos: How a completion that ended at such a string is trained: an end of sequence takes the string's place
            (true), or it stays as it was sampled, the string included and nothing behind it (false).
        prompt_format: ``plain`` text as published, or the model's ``chat`` template.
        batch_size: Rows that are decoded together. Rows leave when they are done, none joins.
        batch_tokens: Budget of a batch in cache positions, rows times (longest prompt + max_new_tokens), in place of
            batch_size: short prompts then share larger batches, and memory has one bound. Null uses batch_size.
        engine: ``transformers`` (reproducible, resumed batch by batch), or ``vllm`` where it is installed: on one GPU,
            fed with a checkpoint that holds the projection; fair draws of the same distribution, but other ones.
        dtype: Dtype of generation and of evaluation: ``auto`` (bf16 where it is fast), ``float32`` or ``bfloat16``.
        val_fraction: Share of the prompts, 0 to below 1, held out for a validation loss; unless 0, one or more.
        min_completions: Least share of completions asked for, 0 to 1, that must hold text; else nothing is trained.
        seed: Seed of the sampling noise, and of the rows where the task is a generated one.
        sampling_seed: Seed of the sampling noise alone, for other answers to the same prompts; null for the run's.
        subspace: A ``subspace.safetensors`` file to project into; null takes that of stage 1.
        corpus_dir: Folder of the corpus; null takes the artifact store.
        device_map: auto spreads a model that is too large for one device over all devices of the one process.
        allow_code_execution: Consent for gold filters on a task of code, as ``evaluation.allow_code_execution``.

    Attributes:
        recipe: What the corpus depends on, as it was typed (`settle` hands in what the run knows).
        train_texts: Texts that are learned, once `setup` has read the corpus.
        val_texts: Texts held out.
        facts: What was seen on the way: counts of the prompts, of the texts, of what was kept, the budget.

    Ranks:
        Batches are formed from the whole list of prompts, then dealt to processes, so the corpus does not depend on
        their number.
    """

    def __init__(
        self,
        model_name_or_path: str = "smollm2-135m-instruct",
        task: Tasks = "arithmetic",
        task_file: str | dict[str, Any] | None = None,
        data_dir: str | None = None,
        method: Method = "spd",
        keep: Keep = "all",
        rows: Rows = "first",
        num_prompts: int | None = None,
        num_generations: int = 1,
        max_new_tokens: int | None = None,
        max_prompt_length: int = 384,
        long_prompts: Literal["truncate", "reject"] = "truncate",
        truncation: Truncation = "middle",
        temperature: float = 0.7,
        top_p: float = 0.9,
        top_k: int = 0,
        min_p: float = 0.0,
        repetition_penalty: float | None = None,
        stop: list[str] | None = None,
        stop_eos: bool = True,
        prompt_format: Literal["plain", "chat"] = "plain",
        batch_size: int = DEFAULT_BATCH_SIZE,
        batch_tokens: int | None = None,
        engine: Literal["transformers", "vllm"] = "transformers",
        dtype: Dtype = "auto",
        val_fraction: float = 0.0,
        min_completions: float = 0.5,
        seed: int = 42,
        sampling_seed: int | None = None,
        subspace: str | None = None,
        corpus_dir: str | None = None,
        device_map: Literal["auto"] | None = None,
        allow_code_execution: bool | None = None,
    ) -> None:
        super().__init__()
        check_options(SelfGenerationDataModule, locals(), "data")
        if not 0 <= val_fraction < 1:
            raise UserError(f"val_fraction={val_fraction} must be at least 0 and below 1. Set --data.val_fraction.")
        if not 0 <= min_completions <= 1:
            raise UserError(f"min_completions={min_completions} is no share. Set --data.min_completions to 0 up to 1.")
        questions = Questions(
            model_name_or_path,
            task,
            task_file,
            data_dir,
            rows,
            num_prompts,
            num_generations,
            max_new_tokens,
            max_prompt_length,
            long_prompts,
            truncation,
            prompt_format,
            seed,
            say=rank_zero_info,
        )
        self.recipe = Recipe(
            questions,
            method,
            subspace,
            temperature,
            top_p,
            top_k,
            min_p,
            1.0 if repetition_penalty is None else float(repetition_penalty),
            stop if isinstance(stop, str) else tuple(stop or ()),  # a text is refused there
            batch_size,
            batch_tokens,
            engine,
            dtype,
            seed if sampling_seed is None else sampling_seed,
        )
        self.keep, self.stop_eos = keep_of(method, keep), stop_eos
        self.val_fraction, self.min_completions = val_fraction, min_completions
        self.device_map, self.allow_code_execution = device_map, allow_code_execution
        self.corpus_dir = Path(corpus_dir) if corpus_dir else None
        self.store, self.told = ArtifactStore("runs/.artifacts"), False
        self.facts: dict[str, Any] = {}
        self.train_texts: list[TrainingText] = []
        self.val_texts: list[TrainingText] = []

    def shown_facts(self) -> dict[str, Any]:
        own = {"method": self.recipe.method, "subspace": self.recipe.subspace, "keep": self.keep}
        return {**self.recipe.questions.facts(), **own, "texts": len(self.train_texts)}

    def settle(self, recipe: Recipe, store: ArtifactStore, told: bool = False) -> None:
        """Take over the recipe of a run, its dtype and subspace settled, and the run's store; ``told``: its health."""
        self.recipe, self.store, self.told = recipe, store, told

    def check_options(self, trains: bool = True) -> None:
        """Refuse now what would end a later stage: prompts, chat template, engine, consent to run programs.

        Args:
            trains: Whether stage 3 follows.

        Raises:
            UserError: For what is wrong.
        """
        recipe = self.recipe
        if recipe.method == "base":
            return
        recipe.questions.read()
        prompts = {request.prompt_ids for request in recipe.questions.requests}
        if trains and self.val_fraction > 0 and len(prompts) < 2:
            raise UserError(
                f"val_fraction={self.val_fraction} holds out prompts, but there is only one. Raise "
                "num_prompts (--data.num_prompts), or set --data.val_fraction 0."
            )
        recipe.check_engine()
        if trains:
            check_keep(self.keep, recipe.questions, self.allow_code_execution)

    def corpus(self) -> Corpus:
        """The corpus: in ``corpus_dir``, else in its folder of the artifact store."""
        return open_corpus(self._on_device(), self.store, self.corpus_dir)

    def _on_device(self) -> Recipe:
        device = self.trainer.strategy.root_device if self.trainer is not None else "cpu"
        return self.recipe.on(device)

    def setup(self, stage: str) -> None:
        """For ``fit``: read the corpus, generating what is missing of it first.

        Raises:
            UserError: If fewer completions than ``min_completions`` hold text, or nothing is left to train on.
        """
        if stage != "fit" or self.train_texts:
            return
        if self.recipe.method == "base":
            raise UserError("method=base generates and trains nothing. Set --data.method to psr, ssd, spd or filtered.")
        self._student_options()  # of another model: told before anything is generated
        corpus = self.corpus()
        if finished(corpus, self.store) is None:
            with sole_writer(corpus, rank_zero_info):
                if finished(corpus, self.store) is None:
                    self._generate(corpus)
        self._read(corpus)

    def _generate(self, corpus: Corpus) -> None:
        """Decode the missing batches inside a fit that has no corpus yet (each rank its portion)."""
        recipe, (rank, world_size) = self._on_device(), self._place()
        if recipe.engine == "vllm":
            if rank == 0:
                generate_with_vllm(recipe, corpus)
        else:
            self._decode(recipe, corpus, rank, world_size)
        self._barrier()
        if rank == 0:
            finish(recipe, corpus, self.store)
        self._barrier()

    def _decode(self, recipe: Recipe, corpus: Corpus, rank: int, world_size: int) -> None:
        device = None if self.trainer is None else self.trainer.strategy.root_device
        SelfGenerationModule(recipe, corpus, self.device_map).fill(device, rank, world_size)

    def _read(self, corpus: Corpus) -> None:
        """Turn the finished corpus into texts, those of some prompts held out."""
        questions = self.recipe.questions
        records = corpus.read()
        if not self.told:
            for line in corpus_lines(records, questions):
                line.told(rank_zero_info)
        refuse_few(records, questions, self.min_completions)
        made = training_set(
            *(records, questions, self.keep),
            cut_at_stops=bool(self.recipe.stop) and self.stop_eos,
            val_fraction=self.val_fraction,
            seed=questions.seed,
            allow=self.allow_code_execution,
            say=rank_zero_info,
        )
        self.train_texts, self.val_texts, self.facts = made.train, made.val, made.facts

    def _place(self) -> tuple[int, int]:
        """This process and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _barrier(self) -> None:
        if self.trainer is not None:
            self.trainer.strategy.barrier()

    def train_dataloader(self) -> TextLoader:
        """Batches of the corpus as ``SPDFineTuningModule`` trains on it; its options rule size and length."""
        h = self._student_options()
        sizes = (h["batch_size"], h["max_length"], h["seed"])
        how: Any = (h["packing"], h["loss_on"], self.trainer.accumulate_grad_batches if self.trainer else 1)
        return make_train_loader(self.train_texts, *sizes, *self._place(), self._pad_token_id, *how)

    def val_dataloader(self) -> TextLoader | list[Any]:
        """Batches of the held-out completions; none without ``val_fraction``."""
        if not self.val_texts:
            return []
        h = self._student_options()
        return make_val_loader(
            self.val_texts, h["batch_size"], h["max_length"], *self._place(), self._pad_token_id, h["loss_on"]
        )

    def _student_options(self) -> dict[str, Any]:
        sizes = {"batch_size": BATCH_SIZE, "max_length": MAX_LENGTH}
        defaults = {**sizes, "seed": self.recipe.questions.seed, "packing": False, "loss_on": "all"}
        module = self.trainer.lightning_module if self.trainer is not None else None
        if module is not None and (name := module.hparams.get("model_name_or_path")) is not None:
            self.recipe.questions.check_trained(str(name))
        return {**defaults, **({k: module.hparams[k] for k in defaults if k in module.hparams} if module else {})}

    @property
    def _pad_token_id(self) -> int:
        return int(load_tokenizer(self.recipe.model_name_or_path).pad_token_id)
