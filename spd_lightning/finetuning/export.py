"""Stage 3, export: a run's result as an ordinary folder with a tokenizer and a model card, for any other tool."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import GenerationConfig

from spd_lightning.artifacts.files import typed_path, write_atomic
from spd_lightning.artifacts.reading import read_object
from spd_lightning.errors import UserError
from spd_lightning.finetuning.export_folder import check_empty, whole_export
from spd_lightning.finetuning.share_kept import LOW, share_kept
from spd_lightning.finetuning.student import merged_copy
from spd_lightning.generation.methods import METHODS
from spd_lightning.model.adapter_beside import is_adapter, merge_inside, read_record
from spd_lightning.model.anatomy import cast_weights, dtype_name
from spd_lightning.model.checkpoint_files import split_revision
from spd_lightning.model.embedded import EMBEDDED, write_terms
from spd_lightning.model.load import load_config, load_model, save_tokenizer
from spd_lightning.model.source import is_gguf, loadable_name, resolve_source
from spd_lightning.model.student_base import check_base_of
from spd_lightning.model.text_part import model_class
from spd_lightning.subspace.projection import fold_into
from spd_lightning.subspace.subspace import CapabilitySubspace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFacts:
    """What a model card says of a run.

    Attributes:
        model_name_or_path: The base model.
        method: ``psr``, ``ssd``, ``spd`` or ``filtered``.
        task: What was calibrated and trained on.
        settings: Options and their values, in the order in which they are shown.
        scores: The table of its scores, ready to be shown (Markdown); empty for none.
    """

    model_name_or_path: str
    method: str
    task: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    scores: str = ""


def export_adapter(adapter: str | Path, out: str | Path, facts: RunFacts) -> Path:
    """Copy a run's adapter, as plain PEFT opens it, with tokenizer and card.

    Raises:
        UserError: If ``out`` is not empty, or the run trained all weights and so has no adapter.
    """
    if not is_adapter(adapter):
        raise UserError(
            f"{adapter} holds no adapter: the run trained all weights (lora_r: null), or was not finished. "
            "Use --form merged."
        )
    check_base_of(adapter, facts.model_name_or_path)
    out = check_empty(out)
    usage = (
        "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"base = AutoModelForCausalLM.from_pretrained({_as_arguments(facts.model_name_or_path)})\n"
        f"model = PeftModel.from_pretrained(base, {_quoted(out)})\n"
    )
    with whole_export(out) as folder:
        for path in sorted(Path(adapter).iterdir()):
            if path.suffix in (".json", ".safetensors"):
                shutil.copyfile(path, folder / path.name)
        _name_base(folder / "adapter_config.json", facts.model_name_or_path)
        _finish(folder, facts, f"A LoRA adapter for {facts.model_name_or_path}", _trained(facts), usage)
    return out


def _name_base(file: Path, model_name_or_path: str) -> None:
    """Have PEFT find the base where it stands now: that of a later round moves with its run."""
    config, name = read_object(file, "Export again."), loadable_name(split_revision(model_name_or_path)[0])
    if Path(name).is_dir() and config.get("base_model_name_or_path") != name:
        write_atomic(file, json.dumps({**config, "base_model_name_or_path": name}, indent=2, sort_keys=True))


def export_merged(adapter: str | Path, out: str | Path, facts: RunFacts, dtype: torch.dtype = torch.float32) -> Path:
    """Write the student as an ordinary checkpoint: the adapter merged into the base in float32, then cast to ``dtype``.

    The card, and the log, say what share of the update the dtype keeps; under 99% the log warns.

    Raises:
        UserError: If ``out`` is not empty.
    """
    check_base_of(adapter, facts.model_name_or_path)
    out = check_empty(out)
    share = share_kept(facts.model_name_or_path, adapter, dtype)
    kept = f"{dtype_name(dtype)} keeps {100 * share:.2f}% of the update that was trained."
    if share < LOW:
        log.warning("%s What is lost is below half a unit of the weights; export the adapter, or float32.", kept)
    else:
        log.info("%s", kept)
    model = merged_copy(facts.model_name_or_path, adapter, dtype)
    merged = f"The adapter was merged into the weights in float32 and stored in {dtype_name(dtype)}."
    how = f"{_trained(facts)} {merged} {kept}"
    return _write_model(model, out, facts, f"A fine-tuned {facts.model_name_or_path}", how)


def export_projected(
    subspace: str | Path, out: str | Path, facts: RunFacts, dtype: torch.dtype = torch.float32
) -> Path:
    """Write the base model with the projection folded into its weights, in float32, then cast to ``dtype``.

    Raises:
        UserError: If ``out`` is not empty, or the subspace belongs to another model.
    """
    out = check_empty(out)
    model = load_model(facts.model_name_or_path, torch.float32)
    merge_inside(fold_into(model, CapabilitySubspace.load(subspace)))  # type: ignore[arg-type]
    cast_weights(model, dtype)
    how = (
        f"Not trained: the weights are those of {facts.model_name_or_path}, keys and values projected onto "
        f"the capability subspace of {facts.task} by weights folded into their layers (arXiv:2605.22675)."
    )
    return _write_model(model, out, facts, f"{facts.model_name_or_path} under projection", how)


def _write_model(model: Any, out: Path, facts: RunFacts, title: str, how: str) -> Path:
    with whole_export(out) as folder:
        model.save_pretrained(folder)
        _keep_decoding_defaults(facts.model_name_or_path, folder)
        _finish(folder, facts, title, how, _usage(out))
    return out


def _keep_decoding_defaults(model_name_or_path: str, out: Path) -> None:
    """Put the base's own generation_config beside the weights: `load_model` leaves it out, other tools look for it."""
    source, local = resolve_source(model_name_or_path)
    with contextlib.suppress(OSError, ValueError):  # there is none, or one that transformers refuses to write
        GenerationConfig.from_pretrained(source, local_files_only=local).save_pretrained(out)


def _trained(facts: RunFacts) -> str:
    return f"{METHODS.get(facts.method, facts.method)}. Prompts: {facts.task}."


def _exact_weights(name: str) -> str:
    """Where the weights of a base stand that was dequantised: those of the hub are the same but for the rounding."""
    if not is_gguf(name):
        return ""
    hub = f"; `{EMBEDDED[name].hub_id}` holds them before they were quantised" if name in EMBEDDED else ""
    return f", a GGUF file; the weights that were used stand dequantised in `{resolve_source(name)[0]}`{hub}"


def embedded_origin(name: str) -> str | None:
    """The embedded model that a base is, or that the student of an earlier round was made of; None for others."""
    while name not in EMBEDDED:
        made_of = read_record(typed_path(name))
        if made_of is None:
            return None
        name = made_of.base
    return name


def _as_arguments(name: str) -> str:
    """A base's name, and its revision where it has one, as other tools take them in Python."""
    base, revision = split_revision(loadable_name(name))
    return json.dumps(base, ensure_ascii=False) + (f", revision={json.dumps(revision)}" if revision else "")


def _quoted(out: Path) -> str:
    """A folder's name as it is typed in Python."""
    return json.dumps(out.name, ensure_ascii=False)


def _usage(out: Path) -> str:
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"model = AutoModelForCausalLM.from_pretrained({_quoted(out)})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({_quoted(out)})\n"
    )


def _finish(out: Path, facts: RunFacts, title: str, how: str, usage: str) -> None:
    """Add the tokenizer, the terms of an embedded model, and the model card."""
    save_tokenizer(facts.model_name_or_path, out)
    if (embedded := embedded_origin(facts.model_name_or_path)) is not None:
        write_terms(embedded, out)
    config = load_config(facts.model_name_or_path, need_weights=False)
    usage = usage.replace("AutoModelForCausalLM", model_class(config).__name__)  # with pictures it has another class
    write_atomic(out / "README.md", model_card(facts, title, how, usage))


def _in_a_cell(value: Any) -> str:
    """A value in one cell of a Markdown table."""
    return " ".join(str(value).replace("|", r"\|").split())


def model_card(facts: RunFacts, title: str, how: str, usage: str) -> str:
    """The text of a model card: what it is, how it was made, its settings and scores, and how to load it."""
    embedded = embedded_origin(facts.model_name_or_path)
    front = {
        "base_model": split_revision(loadable_name(facts.model_name_or_path))[0],
        **({"license": EMBEDDED[embedded].license} if embedded else {}),
        "library_name": "peft" if usage.startswith("from peft") else "transformers",
        "tags": ["self-distillation", "spd_lightning"],
    }
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=10_000).rstrip(),
        "---",
        "",
        f"# {title}",
        "",
        how,
        "",
        f"- Base model: `{facts.model_name_or_path}`{_exact_weights(facts.model_name_or_path)}",
        f"- Method: {facts.method}",
        f"- Task: {facts.task}",
        "",
        "## How to load it",
        "",
        f"```python\n{usage}```",
        "",
    ]
    if embedded and EMBEDDED[embedded].notice:
        lines += ["## Terms", "", f"{EMBEDDED[embedded].notice}.", ""]
        lines += ["This is a modified version: see above. Pass these terms on with it.", ""]
    if facts.settings:
        lines += ["## Settings", "", "| option | value |", "| --- | --- |"]
        lines += [f"| {name} | {_in_a_cell(value)} |" for name, value in facts.settings.items()] + [""]
    if facts.scores:
        lines += ["## Scores", "", facts.scores, ""]
    return "\n".join(lines)
