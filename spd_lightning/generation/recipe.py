"""Stage 2: what a corpus depends on, where it stands, what is missing of it, and its end.

    questions -> recipe -> corpus: its key names the folder, its batches fill it, `finish` closes it

A recipe is plain values. What the command line does not know yet is handed in as a new recipe: `Recipe.on` settles the
dtype on a device, `Recipe.under` the subspace of stage 1; both keep the questions, which are read once.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from spd_lightning.artifacts.files import file_sha256
from spd_lightning.artifacts.settings import differences
from spd_lightning.artifacts.store import COMPLETE, STAGE_VERSION, ArtifactStore, fingerprint
from spd_lightning.errors import UserError
from spd_lightning.generation.corpus import Corpus
from spd_lightning.generation.figures import side_by_side
from spd_lightning.generation.methods import Method
from spd_lightning.generation.questions import Questions
from spd_lightning.generation.requests import DEFAULT_BATCH_SIZE, Generation, Request, form_batches
from spd_lightning.generation.sampling import SamplingParams
from spd_lightning.generation.vllm_engine import check_student, generate_vllm, import_vllm, write_folded
from spd_lightning.model.anatomy import dtype_name
from spd_lightning.model.load import Dtype, load_tokenizer, resolve_dtype
from spd_lightning.model.source import model_fingerprint
from spd_lightning.options import check_options
from spd_lightning.processes import agree, is_rank_zero
from spd_lightning.subspace.subspace import CapabilitySubspace

COMPARED = 4  # prompts that are also answered without the projection, to be shown side by side


@dataclass(frozen=True)
class Recipe:
    """How the questions are answered. The fields are options of `SelfGenerationDataModule`, which explains them.

    Raises:
        UserError: For a number that is not possible.
    """

    questions: Questions
    method: Method = "spd"
    subspace: str | None = None
    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    batch_size: int = DEFAULT_BATCH_SIZE
    batch_tokens: int | None = None
    engine: Literal["transformers", "vllm"] = "transformers"
    dtype: Dtype = "auto"
    seed: int = 42

    def __post_init__(self) -> None:
        check_options(Recipe, vars(self), "data")
        for name in ("batch_size", "batch_tokens"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"{name}={value} must be at least 1. Set --data.{name}.")
        self.questions.check_drawn(self.temperature)
        limit = self.questions.max_new_tokens
        self._sampling(1 if limit is None else limit)  # refuses now; the task, which may set it, is not read yet

    def on(self, device: torch.device | str) -> Recipe:
        """The recipe with the dtype that ``auto`` stands for on a device; one that names its dtype as it is."""
        dtype: Dtype = "bfloat16" if resolve_dtype(self.dtype, device) == torch.bfloat16 else "float32"
        return replace(self, dtype=dtype)

    def under(self, subspace: Path) -> Recipe:
        """The recipe with a subspace file to project into."""
        return replace(self, subspace=str(subspace))

    @property
    def model_name_or_path(self) -> str:
        """The model that answers."""
        return self.questions.model_name_or_path

    @property
    def torch_dtype(self) -> torch.dtype:
        """Dtype of weights and activations; that of a CPU where no device was named."""
        return resolve_dtype(self.dtype)

    @property
    def sampling(self) -> SamplingParams:
        """Decoding settings of the method; PSR samples plainly, under the top-k alone that a model may bring along."""
        return self._sampling(self.questions.new_tokens)

    def limit(self, request: Request) -> int:
        """Most tokens of a completion, which is the task's own where nothing was set."""
        return self.questions.of(request.id).new_tokens

    def sampling_of(self, batch: Sequence[Request]) -> SamplingParams:
        """`sampling` of a batch, which is of one task."""
        return replace(self.sampling, max_new_tokens=self.limit(batch[0])) if batch else self.sampling

    def _sampling(self, max_new_tokens: int) -> SamplingParams:
        typed = SamplingParams(
            max_new_tokens=max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
            stop=self.stop,
        )
        if self.temperature == 0:  # the most probable token is the same, however many others are kept
            return replace(typed, top_p=1.0, top_k=0, min_p=0.0)
        return replace(typed, top_p=1.0, min_p=0.0) if self.method == "psr" else typed

    def check_engine(self) -> None:
        """Refuse an engine that is not there, or that would lose what the model has learned.

        Raises:
            UserError: For what is wrong.
        """
        if self.engine == "vllm":
            import_vllm()
            check_student(self.model_name_or_path, self.torch_dtype)

    def load_subspace(self) -> CapabilitySubspace | None:
        """The subspace to project into; None for methods without one."""
        if self.method != "spd":
            return None
        if self.subspace is None:
            raise UserError(
                "method=spd needs a subspace. Run the extract stage first (fit and generate do), or set "
                "subspace (--data.subspace) to a subspace.safetensors file, or --data.method=ssd."
            )
        subspace = CapabilitySubspace.load(self.subspace)
        subspace.check_model(model_fingerprint(self.model_name_or_path))
        return subspace

    def key(self) -> dict[str, Any]:
        """Exactly what the corpus depends on; its fingerprint names the corpus folder.

        Of several tasks, weights are in it by the prompts that they choose.
        """
        asked, params = self.questions, self.sampling
        names, one = list(asked.asked), len(asked.asked) == 1
        versions = {name: part.task.version for name, part in asked.asked.items()}
        limits = {name: part.new_tokens for name, part in asked.asked.items()}
        return {
            "model": model_fingerprint(self.model_name_or_path),
            "task": names[0] if one else names,
            "task_version": versions[names[0]] if one else versions,
            "rows": asked.rows,
            **asked.digests(),
            "subspace": file_sha256(Path(self.subspace)) if self.method == "spd" and self.subspace else None,
            "num_generations": asked.num_generations,
            "max_new_tokens": limits[names[0]] if one else limits,
            "max_prompt_length": asked.max_prompt_length,
            "long_prompts": asked.long_prompts,
            "truncation": asked.truncation,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "top_k": params.top_k,
            "min_p": params.min_p,
            "repetition_penalty": params.repetition_penalty,
            "stop": list(params.stop),
            "prompt_format": asked.prompt_format,
            "batch_size": self.batch_size if self.batch_tokens is None else None,
            "batch_tokens": self.batch_tokens,
            "engine": self.engine,
            "dtype": dtype_name(self.torch_dtype),
            "seed": self.seed,
        }

    def batches(self) -> list[list[Request]]:
        """All batches, each of one task, formed from the whole list before they are dealt to processes."""
        size = self.batch_size if self.batch_tokens is None else None
        tasks = self.questions.by_task(self.questions.requests, lambda request: request.id).values()
        return [b for own in tasks for b in form_batches(own, size, self.batch_tokens, self.limit(own[0]))]

    def compared(self) -> list[list[Request]]:
        """The few requests that are also answered without the projection, in batches of one task each."""
        first = [r for r in self.questions.requests if r.sample == 0][:COMPARED]
        return list(self.questions.by_task(first, lambda request: request.id).values())


def open_corpus(recipe: Recipe, store: ArtifactStore, folder: Path | None = None) -> Corpus:
    """The corpus of a recipe: in a folder that was named, else in its folder of the artifact store.

    Raises:
        UserError: If the named folder holds a finished corpus of another recipe, a damaged one, or one without record.

    Ranks:
        Collective where a folder is named.
    """
    key = recipe.key()
    corpus = Corpus(folder or store.folder("corpus", key), fingerprint("corpus", **key))
    if folder is not None and (problem := agree(_foreign(corpus, key, store))):
        raise UserError(problem)
    return corpus


def _foreign(corpus: Corpus, key: dict[str, Any], store: ArtifactStore) -> str | None:
    """Why a finished corpus in a named folder is not the one that these options make; None if it is."""
    if not corpus.is_final():
        return None
    if not store.is_complete(corpus.folder):
        if corpus.parts():  # the parts are still there: it was being finished
            return None
        return (
            f"corpus_dir={corpus.folder} holds a generations.jsonl without the record of what it was made "
            f"from ({COMPLETE}). Set --data.corpus_dir to a folder that this program wrote whole, or to a new one."
        )
    if damage := store.damage(corpus.folder):
        return (
            f"corpus_dir={corpus.folder} holds a corpus that is not as it was written ({'; '.join(damage)}). "
            "Remove that folder to have it generated anew, or set --data.corpus_dir to another."
        )
    made = store.facts(corpus.folder)
    differ = differences(made["key"], key)
    if made.get("version") != STAGE_VERSION["corpus"]:
        differ.append(f"version of stage 2: {made.get('version')} there, {STAGE_VERSION['corpus']} here")
    if not differ:
        return None
    return (
        f"corpus_dir={corpus.folder} holds a corpus of other settings ({'; '.join(differ)}). Set "
        "--data.corpus_dir to a new folder, leave it out, or set the options to those of the corpus."
    )


def finished(corpus: Corpus, store: ArtifactStore) -> dict[str, Any] | None:
    """What `finish` recorded of a corpus that is whole; None where completions are missing.

    A damaged one is set aside, and so is a finished file that came without a record.

    Ranks:
        Collective; rank 0 looks.
    """
    return agree(_finished(corpus, store) if is_rank_zero() else None)


def _finished(corpus: Corpus, store: ArtifactStore) -> dict[str, Any] | None:
    known = store.take(corpus.folder)
    if known is not None:
        corpus.remove_parts()  # a killed process may have left some
    elif corpus.is_final() and not corpus.parts() and not store.is_complete(corpus.folder):  # nor finished just now
        store.set_aside(corpus.folder, f"{corpus.path.name} has no record of what it was made from")
    return known


def pending_batches(recipe: Recipe, corpus: Corpus, rank: int = 0, world_size: int = 1) -> list[list[Request]]:
    """This rank's portion of the batches that are not in the corpus yet, so that a continued run is dealt out evenly.

    Ranks:
        Collective: what rank 0 found counts, since others may be writing already.
    """
    finished = agree(corpus.finished())
    pending = [b for b in recipe.batches() if any((r.id, r.sample) not in finished for r in b)]
    return pending[rank::world_size]


def generate_with_vllm(recipe: Recipe, corpus: Corpus) -> None:
    """Complete what is missing of a corpus with vLLM; its checkpoint lies beside the parts meanwhile.

    Ranks:
        For one process.
    """
    finished = corpus.finished()
    missing = [r for r in recipe.questions.requests if (r.id, r.sample) not in finished]
    if not missing:
        return
    import_vllm()
    folder, dtype = corpus.folder / "folded-model", recipe.torch_dtype
    corpus.append([])  # tells at once if the folder cannot be written
    write_folded(recipe.model_name_or_path, recipe.load_subspace(), dtype, folder)
    generate_vllm(
        folder,
        load_tokenizer(recipe.model_name_or_path),
        missing,
        recipe.sampling,
        dtype=dtype_name(dtype),
        on_batch=lambda done: corpus.append([g.record() for g in done]),
        limit=recipe.limit,
    )
    shutil.rmtree(folder)


def finish(recipe: Recipe, corpus: Corpus, store: ArtifactStore, unprojected: Sequence[Generation] = ()) -> None:
    """Sort the parts into the finished corpus, and record in its folder what it depends on and what was seen.

    The record makes it finished; until it stands, the parts do.

    Args:
        recipe: Of the corpus.
        corpus: With all its parts written.
        store: Writes the record.
        unprojected: Completions of `Recipe.compared` without the projection.

    Ranks:
        For one process, after all others have written.
    """
    key, version = recipe.key(), STAGE_VERSION["corpus"]
    corpus.finalise(recipe.questions.requests)
    samples = side_by_side(corpus.read(), unprojected)
    parts = [part.name for part in corpus.parts()]
    store.complete(corpus.folder, key, parts, version=version, samples=samples, torn_lines=corpus.torn)
    corpus.remove_parts()
