"""What every family is put through, a function each: it returns nothing, or raises and says what was wrong.

The measure is always the uncached definition: a forward of one row alone, without cache, padding or batch.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import transformers
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.cli.sample import sample as sample_command
from spd_lightning.errors import UserError
from spd_lightning.evaluation.likelihood import LikelihoodItem, score_choices
from spd_lightning.finetuning.batching import _Row
from spd_lightning.finetuning.batching import collate as collate_texts
from spd_lightning.finetuning.export import RunFacts, export_merged, export_projected
from spd_lightning.finetuning.lora import adapted_blocks
from spd_lightning.finetuning.loss import token_loss_sum
from spd_lightning.generation import engine
from spd_lightning.generation.cache import empty_cache
from spd_lightning.generation.requests import Request
from spd_lightning.generation.sampling import SamplingParams
from spd_lightning.model.load import load_model, load_student
from spd_lightning.subspace.capture import capture_gradients, collate
from spd_lightning.subspace.compare import compare_subspaces
from spd_lightning.subspace.correctness import EncodedExample
from spd_lightning.subspace.layout_check import check_layout
from spd_lightning.subspace.projection import fold_projection, project_kv
from spd_lightning.subspace.sites import SiteKey, kv_sites
from spd_lightning.subspace.subspace import CapabilitySubspace
from tests.zoo.families import VOCABULARY, config_of, random_model, tokenizer
from tests.zoo.specimen import CLOSE, Specimen, alike, greedy, in_float64, logits_alone, rows_of, same

KEEPS = {
    "_Layer": "attention",
    "LinearAttentionLayer": "recurrent",
    "_LayerWithState": "both at once",
    "DummyLayer": "without a cache",
}
NEW_TOKENS = 10
ENDS = list(range(1, VOCABULARY, 6))  # tokens that end a row, so that rows leave at different steps


def extraction(one: Specimen) -> None:
    """Sites of `middle_last`, their roles, and a subspace."""
    keys = one.subspace.sites
    one.seen["layers"] = layers_of(one.model.config)
    one.seen["sites"] = " ".join(f"{i}.kv" if one.sites[i, side].both else f"{i}.{side}" for i, side in keys)
    text_part(one)
    assert check_layout(one.model, one.sites), "the roles of keys and values could not be checked"


def text_part(one: Specimen) -> None:
    """What is loaded of a multimodal checkpoint answers to text as the whole does."""
    if hasattr(config_of(one.family), "vision_config"):
        same(one.model, random_model(one.family), one, "the text part")


def layers_of(config: Any) -> str:
    """The kinds of a model's decoder layers, by what they keep from token to token."""
    kinds = [type(layer).__name__ for layer in empty_cache(mock.Mock(config=config), 1).layers]
    return ", ".join(f"{kinds.count(kind)} {KEEPS[kind]}" for kind in KEEPS if kind in kinds)


def gradients(one: Specimen) -> None:
    """Gradients at the sites, and of the adapter, against finite differences in float64."""
    model = in_float64(load_model(one.path, torch.float32))
    sites = {key: site for key, site in kv_sites(model, sorted({i for i, _ in one.sites})).items() if key in one.sites}
    ids = rows_of(5, (9,))[0]
    example = EncodedExample("a", ids, tuple(t in (5, 8) for t in range(9)))
    found = capture_gradients(model, collate([example]), sites)

    def loss(key: SiteKey, shift: Tensor) -> float:
        def hook(module: Any, args: Any, output: Tensor) -> Tensor:
            output = output.clone()
            index = sites[key].index
            output[:, : len(ids) - 1, slice(None) if index is None else index] += shift
            return output

        handle = sites[key].module.register_forward_hook(hook)
        with contextlib.closing(contextlib.ExitStack()) as stack:
            stack.callback(handle.remove)
            log_probs = logits_alone(model, ids[:-1]).log_softmax(-1)
        return -float(log_probs[4, ids[5]] + log_probs[7, ids[8]]) / 2

    torch.manual_seed(3)
    for key, site in sites.items():
        rows = found[key]
        direction = torch.randn(len(ids) - 1, site.kv_dim, dtype=torch.float64)
        direction /= direction.norm()
        step = 1e-3
        difference = (loss(key, step * direction) - loss(key, -step * direction)) / (2 * step)
        size = float(rows.norm())
        assert size > 0, f"no gradient at {key}"
        alike(difference, float((rows[: len(ids) - 1] * direction).sum()), 1e-2 * size, f"gradient at {key}")


@contextlib.contextmanager
def watched(decoder_logits: list[Tensor]) -> Iterator[None]:
    """Keep the logits of every batched step; those of rows that are decided again alone are not looked at."""
    plain = engine._batched_logits

    def watch(*args: Any) -> Tensor:
        decoder_logits.append(plain(*args))
        return decoder_logits[-1]

    with mock.patch.object(engine, "_batched_logits", watch):
        yield


def decode_all(one: Specimen, model: PreTrainedModel, rows: list[tuple[int, ...]], what: str) -> set[int]:
    """Decoding of a left-padded batch from which rows leave: every logit of every step, by the definition."""
    batch = [Request(str(i), "", ids) for i, ids in enumerate(rows)]
    params = SamplingParams(max_new_tokens=NEW_TOKENS, temperature=1.5)
    steps: list[Tensor] = []
    model.generation_config.eos_token_id = ENDS
    with torch.inference_mode(), watched(steps):
        decoder = engine._Decoder(model, tokenizer(), batch, params, engine.EngineStats())
        open_rows = []
        while decoder.rows:
            open_rows.append(list(decoder.rows))
            decoder.step()
    for i, ids in enumerate(rows):
        whole = logits_alone(model, (*ids, *decoder.tokens[i]))
        for n in range(len(decoder.tokens[i])):
            expected = whole[len(ids) + n - 1]
            found = steps[n][open_rows[n].index(i)]
            off = float((found - expected).abs().max() / expected.abs().max())
            assert off < CLOSE, f"{what}: logits of row {i} (of {len(ids)} tokens) at step {n} are off by {off:.1e}"
    return {len(tokens) for tokens in decoder.tokens}


def generation(one: Specimen) -> None:
    """Projected generation with left padding and leaving rows, with and without a shared beginning."""
    with fold_projection(one.model, one.subspace) as model:
        left = decode_all(one, model, rows_of(1, (5, 21, 13, 2, 30)), "alone")
        left |= decode_all(one, model, rows_of(2, (5, 21, 13, 2), shared=70), "shared beginning")
    assert len(left) > 1, "no row left before the others"


def batches(one: Specimen) -> None:
    """The sampled corpus is the same for any batch size."""
    batch = [Request(str(i), "", ids) for i, ids in enumerate(rows_of(3, (4, 18, 9, 27, 12)))]
    params = SamplingParams(max_new_tokens=NEW_TOKENS, temperature=0.8, top_p=0.95)
    one.model.generation_config.eos_token_id = ENDS
    found = []
    for size in (1, 2, 5):
        out = engine.generate(one.model, tokenizer(), batch, params, batch_size=size)
        found.append({g.id: g.token_ids for g in out})
    assert found[0] == found[1] == found[2], "another batch size gave another corpus"


def likelihoods(one: Specimen) -> None:
    """Log-likelihoods of continuations behind a shared beginning, against each text alone."""
    shots = "Question: which letter?\nAnswer: A\n\n" * 2
    items = [
        LikelihoodItem(str(i), f"{shots}Question: {text}\nAnswer:", (" A", " of them all", " no"), group="shots")
        for i, text in enumerate(("one?", "a rather longer one, with more in it?", "three 3 3?"))
    ]
    items += [LikelihoodItem("letters", "Which of two?", ("A", "B")), LikelihoodItem("alone", "Which?", ("C", "D"))]
    for item, score in zip(
        items, sorted(score_choices(one.model, tokenizer(), items), key=lambda s: order(items, s.id))
    ):
        for choice, found in zip(item.choices, score.log_likelihoods):
            ids = tuple(tokenizer()(item.prompt + choice).input_ids)
            first = len(tokenizer()(item.prompt).input_ids)
            log_probs = logits_alone(one.model, ids[:-1]).float().log_softmax(-1)
            expected = float(sum(log_probs[t - 1, ids[t]] for t in range(first, len(ids))))
            alike(found, expected, 1e-3 * abs(expected), f"log-likelihood of {choice!r} in {item.id}")


def order(items: list[LikelihoodItem], name: str) -> int:
    return [item.id for item in items].index(name)


def training(one: Specimen) -> None:
    """The loss of a padded batch is that of its texts alone; adapter gradients by finite differences; it falls."""
    rows = rows_of(4, (12, 7, 20))
    texts = [_Row(ids, 1) for ids in rows]
    wrapped = in_float64(one.adapted(load_model(one.path, torch.float32)))
    one.seen["adapters"] = " ".join(sorted(wrapped.peft_config["default"].target_modules))
    one.seen["blocks"] = adapted_blocks(wrapped).removeprefix("LoRA adapts ").split(" blocks")[0]
    batch = collate_texts(texts, 0)
    loss = token_loss_sum(wrapped, batch)
    expected = 0.0
    for ids in rows:
        log_probs = logits_alone(wrapped, ids[:-1]).log_softmax(-1)
        expected -= float(sum(log_probs[t - 1, ids[t]] for t in range(1, len(ids))))
    alike(float(loss), expected, 1e-5 * abs(expected), "training loss")
    loss.backward()
    weights = [w for n, w in wrapped.named_parameters() if w.requires_grad]
    lost = [n for n, w in wrapped.named_parameters() if w.requires_grad and w.grad is None]
    assert not lost, f"no gradient for {lost[0]}"
    torch.manual_seed(5)
    direction = [torch.randn_like(w) for w in weights]
    slope = float(sum((w.grad * d).sum() for w, d in zip(weights, direction)))
    size = float(sum((w.grad**2).sum() for w in weights)) ** 0.5
    values = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            for w, d in zip(weights, direction):
                w += step * d
            values.append(float(token_loss_sum(wrapped, batch)))
    alike((values[0] - values[1]) / 2e-5, slope, 1e-2 * size + 1e-2 * abs(slope), "slope of the loss along the adapter")
    optimiser = torch.optim.AdamW(weights, lr=1e-2)
    for _ in range(3):
        optimiser.zero_grad()
        token_loss_sum(wrapped, batch).backward()
        optimiser.step()
    with torch.no_grad():
        after = float(token_loss_sum(wrapped, batch))
    assert after < float(loss), f"the loss rose from {float(loss):.4f} to {after:.4f}"


def evaluation(one: Specimen) -> None:
    """The student as it is scored, its adapter beside the base, is PEFT's own."""
    beside = load_student(one.path, one.adapter, torch.float32)
    peft = PeftModel.from_pretrained(load_model(one.path, torch.float32), str(one.adapter)).eval()
    same(beside, peft, one, "the student beside its base")


def compare(one: Specimen) -> None:
    """Two subspaces of the model, from files, at every site, against the trace of their projectors' product."""
    found = {}
    for name, seed in (("a", 0), ("b", 8)):
        one.subspace_of(seed).save(one.folder / name)
        found[name] = CapabilitySubspace.load(one.folder / name)
    rows = compare_subspaces(found)
    assert [(row.layer, row.side) for row in rows] == sorted(one.sites), "not every site is compared"
    for row in rows:
        a, b = (found[name].basis(row.layer, row.side).double() for name in "ab")
        expected = float(((a @ a.T) @ (b @ b.T)).trace()) / 3
        alike(row.mean_squared_cosine, expected, 1e-6, f"mean squared cosine of layer {row.layer}, {row.side}")
        assert 0 < expected < 1 and row.kv_dim == one.sites[row.layer, row.side].kv_dim


def sample(one: Specimen) -> None:
    """``sample`` shows the greedy completions of base, projected base and student, by the definition."""
    run = RunFolder(one.folder / "sampled")
    one.subspace.save(run.subspace)
    shutil.copytree(one.adapter, run.adapter)
    options = {"subspace": {"model_name_or_path": one.path, "task_file": None}}
    run.config_file.write_text(json.dumps({**options, "data": {"dtype": "float32", "prompt_format": "plain"}}))
    prompt, printed = "Question: 1 plus 2?", io.StringIO()
    with contextlib.redirect_stdout(printed):
        sample_command(str(run.path), prompt=prompt, max_new_tokens=4)
    base = load_model(one.path, torch.float32)
    expected = greedy(base, prompt)
    with project_kv(base, one.subspace) as model:
        expected += greedy(model, prompt)
    expected += greedy(load_student(one.path, one.adapter, torch.float32), prompt)
    shown = [part.split("\n", 1)[1].rstrip("\n") for part in printed.getvalue().split("\n--- ")[1:]]
    assert shown == [text.rstrip("\n") for text in expected], f"{shown} instead of {expected}"


def exports(one: Specimen) -> None:
    """Merged and projected checkpoints, opened by plain transformers, are the student and the projected base."""
    facts = RunFacts(one.path, "spd", "none")
    one.subspace.save(one.folder / "subspace.safetensors")
    merged = export_merged(one.adapter, one.folder / "merged", facts)
    projected = export_projected(one.folder / "subspace.safetensors", one.folder / "projected", facts)
    same(_plain(merged), load_student(one.path, one.adapter, torch.float32), one, "the merged export")
    with project_kv(one.model, one.subspace) as model:
        same(_plain(projected), model, one, "the projected export")
    base = load_model(one.path, torch.float32)
    with fold_projection(base, one.subspace):
        pass
    ids = rows_of(7, (5,))[0]
    assert not torch.equal(logits_alone(base, ids), logits_alone(_plain(projected), ids)), "the projection does nothing"


def _plain(folder: Path) -> PreTrainedModel:
    """As the model card says it, which names the class."""
    name = next(
        n for n in ("AutoModelForCausalLM", "AutoModelForImageTextToText") if n in (folder / "README.md").read_text()
    )
    return getattr(transformers, name).from_pretrained(folder, dtype=torch.float32).eval()


COLUMNS: dict[str, Callable[[Specimen], None]] = {
    "extraction": extraction,
    "gradients": gradients,
    "generation": generation,
    "batches": batches,
    "likelihoods": likelihoods,
    "training": training,
    "evaluation": evaluation,
    "compare": compare,
    "sample": sample,
    "exports": exports,
}


def put_through(
    family: str, folder: Path, columns: Mapping[str, Callable[[Specimen], None]] = COLUMNS
) -> dict[str, Any]:
    """What became of a family: every column's outcome, or the line with which it is refused."""
    one, outcomes = Specimen(family, folder), {}
    for name, column in columns.items():
        try:
            column(one)
            outcomes[name] = "ok"
        except UserError as error:
            if name == "extraction":
                return {"refused": str(error).replace(one.path, family).split(" Set ")[0]}
            outcomes[name] = f"refused: {error}"
        except Exception as error:
            outcomes[name] = f"{type(error).__name__}: {error}"
    return {**one.seen, **outcomes}
