"""Stage 2's LightningDataModule: training prompts in, a corpus of the model's own completions out, batches of it for
fine-tuning.

In a notebook, ``Trainer().fit(SPDFineTuningModule(...), datamodule=SelfGenerationDataModule(...))`` generates the
corpus first if it is not in the store yet.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info

from spd_lightning.artifacts.checksums import file_sha256
from spd_lightning.artifacts.files import InUseError, file_lock, read_jsonl
from spd_lightning.artifacts.settings import differences
from spd_lightning.artifacts.store import COMPLETE, STAGE_VERSION, ArtifactStore, fingerprint
from spd_lightning.batches import Batches
from spd_lightning.errors import UserError
from spd_lightning.finetuning.batching import TextLoader, make_train_loader, make_val_loader
from spd_lightning.finetuning.texts import TrainingText, split_validation, texts_from_corpus
from spd_lightning.generation.corpus import Corpus, side_by_side
from spd_lightning.generation.engine import Generation, check_context
from spd_lightning.generation.module import SelfGenerationModule
from spd_lightning.generation.requests import Request, Truncation, build_requests, form_batches
from spd_lightning.generation.sampling import SamplingParams
from spd_lightning.generation.vllm_engine import check_student, generate_vllm, import_vllm, write_folded
from spd_lightning.model.anatomy import dtype_name
from spd_lightning.model.load import load_config, load_tokenizer, resolve_dtype
from spd_lightning.model.source import model_fingerprint
from spd_lightning.processes import agree, is_rank_zero
from spd_lightning.scoring import judging
from spd_lightning.scoring.answers import cut_at_stops, evaluation_stops
from spd_lightning.subspace.subspace import CapabilitySubspace
from spd_lightning.tasks import load_task
from spd_lightning.tasks.task import Example, Rows, Task

WAIT_S = 1.0  # between two looks whether another run has finished the corpus
COMPARED = 4  # prompts that are also answered without the projection, to be shown side by side

Method = Literal["base", "psr", "ssd", "spd", "filtered"]


class SelfGenerationDataModule(LightningDataModule):
    """Self-generated training data: which prompts, how they are answered, and batches of the result.

    Args:
        model_name_or_path: The model that answers: hub id, folder, ``.gguf`` file or ``smollm2-135m-instruct``.
        task: Task whose training split gives the prompts.
        task_file: JSON Lines file of ``task: custom``.
        data_dir: Folder of data sets; null takes ``SPD_DATA_DIR``, else the hub.
        method: ``base`` (generate and train nothing), ``psr`` (plain sampling: top_p and min_p are not used, top_k is),
            ``ssd`` (truncated sampling), ``spd`` (ssd's sampling under the projection) or ``filtered`` (ssd kept only
            where the gold answer agrees: uses an external signal, an upper bound for comparison).
        rows: Which rows are calibrated and trained on: ``first`` (the training split as it stands), or ``reference``
            (those of the authors' script: MMLU's auxiliary_train shuffled, with dev in its place where it is absent,
            and MBPP's text untouched; gsm8k, mbpp and mmlu only).
        num_prompts: The first so many training prompts; null for all of them.
        num_generations: Completions per prompt.
        max_new_tokens: Limit of a completion in tokens; null for the task's own.
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
        val_fraction: Share of the prompts whose completions are held out for a validation loss, 0 to below 1; at least
            one prompt unless 0. Training never sees a held-out prompt.
        seed: Seed of the sampling noise.
        subspace: A ``subspace.safetensors`` file to project into; null takes that of stage 1.
        corpus_dir: Folder of the corpus; null takes the artifact store.
        device_map: auto spreads a model that is too large for one device over all devices of the one process.
        allow_code_execution: Consent for ``filtered`` on a task of code, as ``evaluation.allow_code_execution``.

    Ranks:
        Batches are formed from the whole list of prompts, then dealt to processes, so the corpus does not depend on
        their number.
    """

    def __init__(
        self,
        model_name_or_path: str = "smollm2-135m-instruct",
        task: str = "arithmetic",
        task_file: str | None = None,
        data_dir: str | None = None,
        method: Method = "spd",
        rows: Literal["first", "reference"] = "first",
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
        batch_size: int = 64,
        batch_tokens: int | None = None,
        engine: Literal["transformers", "vllm"] = "transformers",
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        val_fraction: float = 0.0,
        seed: int = 42,
        subspace: str | None = None,
        corpus_dir: str | None = None,
        device_map: Literal["auto"] | None = None,
        allow_code_execution: bool | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= val_fraction < 1:
            raise UserError(f"data.val_fraction={val_fraction} must be at least 0 and below 1.")
        counts = {
            "num_generations": num_generations,
            "batch_size": batch_size,
            "batch_tokens": batch_tokens,
            "max_prompt_length": max_prompt_length,
        }
        for name, value in counts.items():
            if value is not None and value < 1:
                raise UserError(f"data.{name}={value} must be at least 1.")
        if num_prompts is not None and num_prompts < 1:
            raise UserError(f"data.num_prompts={num_prompts} leaves no prompt. Set at least 1, or null for all.")
        new_tokens = 1 if max_new_tokens is None else max_new_tokens  # the task may set it; told now, not after stage 1
        self.repetition_penalty = 1.0 if repetition_penalty is None else float(repetition_penalty)
        SamplingParams(
            max_new_tokens=new_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            repetition_penalty=self.repetition_penalty,
            stop=stop if isinstance(stop, str) else tuple(stop or ()),  # type: ignore[arg-type]  # refused there
        )
        self.stop, self.stop_eos = tuple(stop or ()), stop_eos
        self.model_name_or_path = model_name_or_path
        self.task_name, self.task_file, self.data_dir = task, task_file, data_dir
        self.method = method
        self.rows: Rows = rows
        self.num_prompts, self.num_generations = num_prompts, num_generations
        self.max_new_tokens = max_new_tokens
        self.max_prompt_length, self.long_prompts, self.truncation = max_prompt_length, long_prompts, truncation
        self.temperature, self.top_p, self.top_k, self.min_p = temperature, top_p, top_k, min_p
        self.prompt_format = prompt_format
        self.batch_size, self.batch_tokens = batch_size, batch_tokens
        self.engine, self.dtype = engine, dtype
        self.val_fraction = val_fraction
        self.seed = seed
        self.subspace_path = subspace
        self.device_map = device_map
        self.allow_code_execution = allow_code_execution
        self.corpus_dir = Path(corpus_dir) if corpus_dir else None
        self.store = ArtifactStore("runs/.artifacts")  # the command line sets the store of its runs
        self.facts: dict[str, Any] = {}
        self.train_texts: list[TrainingText] = []
        self.val_texts: list[TrainingText] = []
        self._task: Task | None = None
        self._prompts: list[Example] | None = None
        self._requests: list[Request] | None = None

    # What is asked, and how it is answered.

    @property
    def task(self) -> Task:
        """The task object (rows are read on first use)."""
        if self._task is None:
            self._task = load_task(self.task_name, self.data_dir, self.task_file, "--subspace.task", self.rows)
        return self._task

    @property
    def prompts(self) -> list[Example]:
        """The training prompts, in the data's order.

        Raises:
            UserError: If there is none.
        """
        if self._prompts is None:
            self._prompts = self.task.examples("train", self.num_prompts)
            if not self._prompts:
                raise UserError(f"Task {self.task_name!r} has no training prompt. Choose another --subspace.task.")
        return self._prompts

    @property
    def sampling_params(self) -> SamplingParams:
        """Decoding settings of the method; PSR samples plainly, under the top-k alone that a model may bring along."""
        plain = self.method == "psr"
        return SamplingParams(
            max_new_tokens=self.max_new_tokens or self.task.max_new_tokens,
            temperature=self.temperature,
            top_p=1.0 if plain else self.top_p,
            top_k=self.top_k,
            min_p=0.0 if plain else self.min_p,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
            stop=self.stop,
        )

    @property
    def requests(self) -> list[Request]:
        """Every (prompt, sample) pair in canonical order of the prompts, tokenised."""
        if self._requests is None:
            tokenizer = load_tokenizer(self.model_name_or_path)
            pairs = [(example.id, example.prompt) for example in self.prompts]
            requests, counts = build_requests(
                tokenizer,
                pairs,
                num_generations=self.num_generations,
                max_prompt_length=self.max_prompt_length,
                prompt_format=self.prompt_format,
                on_long=self.long_prompts,
                truncation=self.truncation,
            )
            self._say_long(counts)
            config = load_config(self.model_name_or_path)  # told before hours of work: the longest batch comes last
            check_context(config, requests, self.sampling_params.max_new_tokens)
            self._requests = requests
            self.facts["prompts"] = counts
        return self._requests

    def _say_long(self, counts: dict[str, int]) -> None:
        if counts["truncated"]:
            rank_zero_info(
                f"[generate] {counts['truncated']} of {counts['prompts']} prompts are longer than "
                f"{self.max_prompt_length} tokens and lose the {self.truncation} of their text "
                "(--data.max_prompt_length, --data.truncation)"
            )
        if counts["rejected"]:
            rank_zero_info(
                f"[generate] {counts['rejected']} of {counts['prompts']} prompts are longer than "
                f"{self.max_prompt_length} tokens and are left out (--data.long_prompts reject)"
            )

    def check_options(self, trains: bool = True) -> None:
        """Refuse now what would end a later stage: prompts, chat template, engine, consent to run programs.

        Args:
            trains: Whether stage 3 follows.

        Raises:
            UserError: For what is wrong.
        """
        if self.method == "base":
            return
        prompts = {request.prompt_ids for request in self.requests}
        if trains and self.val_fraction > 0 and len(prompts) < 2:
            raise UserError(
                f"data.val_fraction={self.val_fraction} holds out prompts, but there is only one. Raise "
                "--data.num_prompts, or set --data.val_fraction 0."
            )
        if self.engine == "vllm":
            import_vllm()
            check_student(self.model_name_or_path, self.torch_dtype())
        if trains and self.method == "filtered":
            judging.check_consent(self.task.answer_type, self.allow_code_execution)

    def torch_dtype(self) -> torch.dtype:
        """The dtype of generation on the device that the trainer uses."""
        device = self.trainer.strategy.root_device if self.trainer is not None else "cpu"
        return resolve_dtype(self.dtype, device)

    def load_subspace(self) -> CapabilitySubspace | None:
        """The subspace to project into; None for methods without one."""
        if self.method != "spd":
            return None
        if self.subspace_path is None:
            raise UserError(
                "data.method=spd needs a subspace. Run the extract stage first (fit and generate do), or set "
                "--data.subspace to a subspace.safetensors file, or --data.method=ssd."
            )
        subspace = CapabilitySubspace.load(self.subspace_path)
        subspace.check_model(model_fingerprint(self.model_name_or_path))
        return subspace

    def key(self) -> dict[str, Any]:
        """Exactly what the corpus depends on; its fingerprint names the corpus folder."""
        params = self.sampling_params
        prompts = [[e.id, e.prompt] for e in self.prompts]
        tokens = [[r.id, *r.prompt_ids] for r in self.requests if r.sample == 0]  # what the template made of them
        return {
            "model": model_fingerprint(self.model_name_or_path),
            "task": self.task_name,
            "task_version": self.task.version,
            "rows": self.rows,
            "prompts": hashlib.sha256(json.dumps(prompts, ensure_ascii=True).encode()).hexdigest(),
            "prompt_tokens": hashlib.sha256(json.dumps(tokens).encode()).hexdigest(),
            "subspace": file_sha256(Path(self.subspace_path)) if self.method == "spd" and self.subspace_path else None,
            "num_generations": self.num_generations,
            "max_new_tokens": params.max_new_tokens,
            "max_prompt_length": self.max_prompt_length,
            "long_prompts": self.long_prompts,
            "truncation": self.truncation,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "top_k": params.top_k,
            "min_p": params.min_p,
            "repetition_penalty": params.repetition_penalty,
            "stop": list(params.stop),
            "prompt_format": self.prompt_format,
            "batch_size": self.batch_size if self.batch_tokens is None else None,
            "batch_tokens": self.batch_tokens,
            "engine": self.engine,
            "dtype": dtype_name(self.torch_dtype()),
            "seed": self.seed,
        }

    def corpus(self) -> Corpus:
        """The corpus: in ``corpus_dir``, else in its folder of the artifact store."""
        key = self.key()
        corpus = Corpus(self.corpus_dir or self.store.folder("corpus", key), fingerprint("corpus", **key))
        if self.corpus_dir is not None and (problem := agree(self._foreign(corpus, key))):
            raise UserError(problem)
        return corpus

    def _foreign(self, corpus: Corpus, key: dict[str, Any]) -> str | None:
        """Why a finished corpus in ``corpus_dir`` is not the one that these options make; None if it is."""
        if not corpus.is_final():
            return None
        if not self.store.is_complete(corpus.folder):
            return (
                f"data.corpus_dir={self.corpus_dir} holds a generations.jsonl without the record of what it was made "
                f"from ({COMPLETE}). Set --data.corpus_dir to a folder that this program wrote whole, or to a new one."
            )
        facts = self.store.facts(corpus.folder)
        differ = differences(facts["key"], key)
        if facts.get("version") != STAGE_VERSION["corpus"]:
            differ.append(f"version of stage 2: {facts.get('version')} there, {STAGE_VERSION['corpus']} here")
        if not differ:
            return None
        return (
            f"data.corpus_dir={self.corpus_dir} holds a corpus of other settings ({'; '.join(differ)}). Set "
            "--data.corpus_dir to a new folder, leave it out, or set the options to those of the corpus."
        )

    # Stage 2: batches of prompts.

    def generation_module(self, corpus: Corpus) -> SelfGenerationModule:
        """The module that ``Trainer.predict`` runs over `predict_dataloader`."""
        return SelfGenerationModule(
            self.model_name_or_path,
            self.sampling_params,
            corpus,
            self.load_subspace(),
            self.torch_dtype(),
            self.device_map,
            compare=[r for r in self.requests if r.sample == 0][:COMPARED],
        )

    def batches(self) -> list[list[Request]]:
        """All batches, formed from the whole list before they are dealt to processes."""
        size = self.batch_size if self.batch_tokens is None else None
        return form_batches(self.requests, size, self.batch_tokens, self.sampling_params.max_new_tokens)

    def pending_batches(self, corpus: Corpus, rank: int = 0, world_size: int = 1) -> list[list[Request]]:
        """This rank's share of the batches that are not in the corpus yet, so that a continued run is dealt out evenly.

        What rank 0 found counts: others may be writing already.
        """
        finished = agree(corpus.finished())
        pending = [b for b in self.batches() if any((r.id, r.sample) not in finished for r in b)]
        return pending[rank::world_size]

    def predict_dataloader(self) -> Batches:
        """This rank's unfinished batches, one list of `Request` a step; an empty one where it has none to do.

        (Lightning refuses a loader without a batch on one of several processes.)
        """
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return Batches(self.pending_batches(self.corpus(), rank, world_size) or [[]])

    def generate_with_vllm(self, corpus: Corpus) -> None:
        """Complete what is missing of the corpus with vLLM; its checkpoint lies beside the parts meanwhile.

        Ranks:
            For one process.
        """
        finished = corpus.finished()
        missing = [r for r in self.requests if (r.id, r.sample) not in finished]
        if not missing:
            return
        import_vllm()
        folder, dtype = corpus.folder / "folded-model", self.torch_dtype()
        corpus.append([])  # tells at once if the folder cannot be written
        write_folded(self.model_name_or_path, self.load_subspace(), dtype, folder)
        name = dtype_name(dtype)
        generate_vllm(
            folder,
            load_tokenizer(self.model_name_or_path),
            missing,
            self.sampling_params,
            dtype=name,
            on_batch=lambda done: corpus.append([g.record() for g in done]),
        )
        shutil.rmtree(folder)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Requests hold no tensors and stay as they are; training batches move as usual."""
        return batch if isinstance(batch, list) else super().transfer_batch_to_device(batch, device, dataloader_idx)

    # Stage 3: batches of the finished corpus.

    def setup(self, stage: str) -> None:
        """For ``fit``: read the corpus, generating what is missing of it first.

        Raises:
            UserError: If every completion is empty, or nothing is left to train on.
        """
        if stage != "fit" or self.train_texts:
            return
        corpus = self.corpus()
        if not agree(corpus.is_final()):
            with self.sole_writer(corpus):
                if not agree(corpus.is_final()):
                    self._generate_here(corpus)
        tokenizer = load_tokenizer(self.model_name_or_path)
        prompt_ids = {request.id: request.prompt_ids for request in self.requests}
        records = list(read_jsonl(corpus.path))
        if self.method == "filtered":
            records = self._keep_correct(records)
        texts, counts = texts_from_corpus(
            records, tokenizer, prompt_ids=prompt_ids, cut_at_stops=bool(self.stop) and self.stop_eos
        )
        self.facts["texts"] = counts
        if counts["empty"]:
            rank_zero_info(
                f"[fine_tune] {counts['empty']} of {len(texts)} completions hold no text; they are trained as "
                "they were sampled"
            )
        self.train_texts, self.val_texts = split_validation(texts, self.val_fraction, self.seed)

    def _generate_here(self, corpus: Corpus) -> None:
        """Decode the missing batches inside a fit that has no corpus yet (each rank its share)."""
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if self.engine == "vllm":
            if rank == 0:
                self.generate_with_vllm(corpus)
        else:
            self._decode_here(corpus, rank, world_size)
        self._barrier()
        if rank == 0:
            self.finish(corpus)
        self._barrier()

    @contextlib.contextmanager
    def sole_writer(self, corpus: Corpus) -> Iterator[None]:
        """Hold a corpus while it is written, waiting for another run that writes the same one: it may then be finished.

        Raises:
            UserError: If its folder cannot be written.

        Ranks:
            Collective; rank 0 holds the lock for all.
        """
        with contextlib.ExitStack() as held:

            def take() -> bool:
                with contextlib.suppress(InUseError):
                    held.enter_context(file_lock(corpus.folder / ".lock", f"The corpus in {corpus.folder}"))
                    return True
                return False

            waiting = False
            while not agree(take() if is_rank_zero() else True):
                if not waiting:
                    rank_zero_info(f"[generate] another run generates this corpus; waiting for it ({corpus.folder})")
                waiting = True
                time.sleep(WAIT_S)
            yield

    def finish(self, corpus: Corpus, unprojected: Sequence[Generation] = ()) -> None:
        """Sort the parts into the finished corpus, and record in its folder what it depends on and what was seen.

        Ranks:
            For one process, after all others have written.
        """
        key, version = self.key(), STAGE_VERSION["corpus"]
        self.store.complete(corpus.folder, key, version=version)  # a finished file is never without its record
        corpus.finalise(self.requests)
        samples = side_by_side(corpus.read(), unprojected)
        self.store.complete(corpus.folder, key, version=version, samples=samples, torn_lines=corpus.torn)

    def _decode_here(self, corpus: Corpus, rank: int, world_size: int) -> None:
        module = self.generation_module(corpus)
        module.configure_model()
        if self.trainer is not None:
            module.to(self.trainer.strategy.root_device)
        module.on_predict_start()
        try:
            for batch in self.pending_batches(corpus, rank, world_size):
                module.generate(batch, rank)
        finally:
            module.on_predict_end()

    def _barrier(self) -> None:
        if self.trainer is not None:
            self.trainer.strategy.barrier()

    def judged_part(self, completion: str) -> str:
        """What of a completion is judged: the text before the stop strings of the standard evaluation."""
        stops = evaluation_stops(self.task.answer_type, self.task.stop, "standard", self.prompt_format)
        return cut_at_stops(completion, stops)

    def _keep_correct(self, records: list[dict[str, Any]]) -> list[Any]:
        """Keep the completions that the gold answer agrees with (method ``filtered``; an external signal)."""
        judged = [{**record, "completion": self.judged_part(record["completion"])} for record in records]
        right: list[bool] = []
        if is_rank_zero():
            right = judging.correct_completions(self.prompts, self.task.answer_type, judged, self.allow_code_execution)
        right = agree(right)  # a program near its time limit may pass once and fail once
        kept = [record for record, correct in zip(records, right, strict=True) if correct]
        self.facts["filtered"] = {"kept": len(kept), "of": len(records)}
        if not kept:
            raise UserError(
                f"data.method=filtered: 0 of {len(records)} completions agree with the gold answer, so nothing is "
                "left to train on. Raise --data.num_prompts or --data.num_generations, or set --data.method=ssd."
            )
        return kept

    def train_dataloader(self) -> TextLoader:
        """Batches of the corpus as ``SPDFineTuningModule`` trains on it; its options rule size and length."""
        h = self._student_options()
        return make_train_loader(
            self.train_texts,
            h["batch_size"],
            h["max_length"],
            h["seed"],
            self.trainer.global_rank if self.trainer else 0,
            self.trainer.world_size if self.trainer else 1,
            self._pad_token_id,
            h["packing"],
            h["loss_on"],
            self.trainer.accumulate_grad_batches if self.trainer else 1,
        )

    def val_dataloader(self) -> TextLoader | list[Any]:
        """Batches of the held-out completions; none without ``val_fraction``."""
        if not self.val_texts:
            return []
        h = self._student_options()
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return make_val_loader(
            self.val_texts, h["batch_size"], h["max_length"], rank, world_size, self._pad_token_id, h["loss_on"]
        )

    def _student_options(self) -> dict[str, Any]:
        defaults = {"batch_size": 4, "max_length": 256, "seed": self.seed, "packing": False, "loss_on": "all"}
        module = self.trainer.lightning_module if self.trainer is not None else None
        return {**defaults, **({k: module.hparams[k] for k in defaults if k in module.hparams} if module else {})}

    @property
    def _pad_token_id(self) -> int:
        return int(load_tokenizer(self.model_name_or_path).pad_token_id)
