"""LoRA adapters beside the weights of their base, in one product with one rounding.

In bf16 an update smaller than half a unit in the last place vanishes when it is merged into the weights, and again
when it is added to an output that is rounded already: at 16 sites of SmolLM2, with updates of 0.2 units, merging kept
0.18 to 0.79 of them and PEFT's own forward 0.08 to 0.64. Either biases scores towards "no change". Here
``[W | s B] [x ; A x] + b`` is one product over in_features + r columns; matrix products accumulate in float32, so base
and adapter are summed before the one rounding of the output (0.997 kept over the same sites).

A folder that holds `RECORD` is a student in two forms: an ordinary float32 checkpoint for other tools, and the base it
came from with the adapters trained since, which is how `load.load_model` loads it.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from spd_lightning.artifacts.files import typed_path
from spd_lightning.errors import UserError
from spd_lightning.model.anatomy import is_conv1d, is_linear
from spd_lightning.model.damage import check_files, read_object, told

if TYPE_CHECKING:
    from peft import PeftModel

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
RECORD = "beside.json"
PLAIN_LINEAR = ("FalconLinear",)  # subclasses of nn.Linear that compute x W^T + b, in other words
_MULTIPLE = 8  # columns of the product: 16 bytes in bf16, which the tensor cores of a GPU want


class LinearBeside(nn.Linear):
    """A linear layer with adapters: ``[W | s B] [x ; A x] + b``, rounded once.

    ``weight`` is ``[W | s B]``, ``[out_features, in_features + r]``, so what multiplies its rows (a folded projection)
    acts on base and adapter alike; ``inner`` is A, ``[r, in_features]``. Columns of zeros fill r up.

    Args:
        base: The layer: nn.Linear, Conv1D (GPT-2), or one that has adapters beside it already.
        inner: A, ``[r, in_features]``.
        outer: B times its scale, ``[out_features, r]``.
    """

    inner: nn.Parameter

    def __init__(self, base: nn.Module, inner: Tensor, outer: Tensor) -> None:
        nn.Module.__init__(self)
        weight: Any = base.weight
        self.transposed = is_conv1d(base) or getattr(base, "transposed", False)
        rows = weight.T if is_conv1d(base) else weight
        if isinstance(base, LinearBeside):
            inner = torch.cat([base.inner, inner.to(base.inner)])
        self.in_features, self.out_features = inner.shape[1], outer.shape[0]
        more = -(rows.shape[1] + outer.shape[1]) % _MULTIPLE
        outer, inner = F.pad(outer, (0, more)), F.pad(inner, (0, 0, 0, more))
        self.weight = nn.Parameter(torch.cat([rows, outer.to(rows)], dim=1).contiguous(), requires_grad=False)
        self.inner = nn.Parameter(inner.to(rows).contiguous(), requires_grad=False)
        self.bias = base.bias  # type: ignore[assignment]
        self.train(base.training)

    def base_weight(self) -> Tensor:
        """W alone, as the layer that was replaced held it."""
        weight = self.weight[:, : self.in_features]
        return weight.T if self.transposed else weight

    def widen(self, x: Tensor) -> Tensor:
        """``[x ; A x]``, ``[..., in_features + r]``."""
        return torch.cat([x, F.linear(x, self.inner)], dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """The output ``[..., out_features]`` for ``x`` ``[..., in_features]``."""
        if not x.is_cuda:
            return F.linear(self.widen(x), self.weight, self.bias)
        flags = torch.backends.cuda.matmul  # cuBLAS may round partial sums to bf16 where it splits the columns
        before = flags.allow_bf16_reduced_precision_reduction
        flags.allow_bf16_reduced_precision_reduction = False
        try:
            return F.linear(self.widen(x), self.weight, self.bias)
        finally:
            flags.allow_bf16_reduced_precision_reduction = before


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds a PEFT adapter (else a checkpoint, if anything)."""
    return (Path(folder) / ADAPTER_CONFIG).is_file()


def load_adapter(base_model: PreTrainedModel, folder: str | Path) -> PeftModel:
    """Wrap a base model with a saved adapter as PEFT does; for merging and for `put_beside`, not for scoring.

    Raises:
        UserError: If the folder holds no PEFT adapter, or one of another shape than the base.
    """
    from peft import PeftModel

    folder = Path(folder)
    absent = [name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if not (folder / name).is_file()]
    if absent:
        raise UserError(
            f"{folder} holds no PEFT adapter ({', '.join(absent)} is missing). Give the adapter/ folder of a run, or "
            "one written by peft's save_pretrained."
        )
    check_files(folder, (ADAPTER_CONFIG, ADAPTER_WEIGHTS))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")  # an error here, below
            wrapped = PeftModel.from_pretrained(base_model, str(folder)).eval()
        _check_keys(wrapped, folder)
        return wrapped
    except Exception as error:  # of peft, safetensors, torch: all mean files that do not suit them
        detail = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
        raise UserError(
            f"The adapter in {folder} does not fit {type(base_model).__name__}: {detail} "
            "Give the base model it was trained on (base_model_name_or_path in its adapter_config.json)."
        ) from error


def _check_keys(wrapped: PeftModel, folder: Path) -> None:
    """Refuse weights that PEFT would leave out, or leave at their start, with a warning alone.

    Raises:
        ValueError: With the first name.
    """
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(str(folder / ADAPTER_WEIGHTS), "pt") as file:
        there = {name for name in file.keys() if "lora_" in name}  # noqa: SIM118 (no mapping); it may hold more
    here = {name for name in get_peft_model_state_dict(wrapped, save_embedding_layers=False) if "lora_" in name}
    for names, what in ((here - there, "are missing from its file"), (there - here, "have no place in the model")):
        if names:
            raise ValueError(f"{len(names)} weights {what}, the first is {min(names)}.")


def put_beside(model: PreTrainedModel, folder: str | Path) -> PreTrainedModel:
    """Put a saved LoRA adapter beside the weights of its base.

    Every adapted layer becomes a `LinearBeside`; the others, and W itself, are untouched. Scales (alpha / r, or
    alpha / sqrt(r) under rsLoRA), ranks and alphas by layer are read as PEFT reads them.

    Args:
        model: The base, in any dtype, on one device; changed in place. It may have adapters beside it already.
        folder: A PEFT folder.

    Returns:
        The model, in eval mode and frozen.

    Raises:
        UserError: As `load_adapter`, and for an adapter that is no plain LoRA of linear layers.
    """
    _check_plain(Path(folder))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")  # a GPT-2's adapter on its second round
        wrapped = load_adapter(model, folder)
    parts = lora_parts(wrapped, folder)
    model = wrapped.unload()
    for path, (inner, outer) in parts.items():
        model.set_submodule(path, LinearBeside(model.get_submodule(path), inner, outer))
    return model.requires_grad_(False).eval()


@contextmanager
def base_alone(model: nn.Module) -> Iterator[nn.Module]:
    """Let a model compute as its base does while the context lasts: what its adapters add is zero.

    The products stay those of the student, so that an adapter that adds nothing changes no bit. Weights that are packed
    (`packed_linear.packed_linears`) were read when they were packed: pack inside this context.

    Args:
        model: With adapters beside its weights, all of which are put aside.

    Yields:
        The model; its adapters are back in any case once the context ends.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, LinearBeside)]
    kept = [layer.inner for layer in layers]
    try:
        for layer in layers:
            layer.inner = nn.Parameter(torch.zeros_like(layer.inner), requires_grad=False)
        yield model
    finally:
        for layer, inner in zip(layers, kept):
            layer.inner = inner


def merge_inside(model: PreTrainedModel) -> PreTrainedModel:
    """Merge the adapters that stand beside a float32 model's weights into them, to write an ordinary checkpoint."""
    for path, layer in [(p, m) for p, m in model.named_modules() if isinstance(m, LinearBeside)]:
        width = layer.in_features
        weight = (layer.weight[:, :width].double() + layer.weight[:, width:].double() @ layer.inner.double()).float()
        plain: Any = nn.Linear(width, layer.out_features, bias=False, device="meta")
        if layer.transposed:
            plain, weight = Conv1D(layer.out_features, width), weight.T.contiguous()
        plain.weight, plain.bias = nn.Parameter(weight, requires_grad=False), layer.bias
        model.set_submodule(path, plain.train(layer.training))
    return model


def lora_parts(wrapped: PeftModel, folder: str | Path) -> dict[str, tuple[Tensor, Tensor]]:
    """By path of the adapted layer within the base: A ``[r, in]`` and s B ``[out, r]``, both float32.

    Raises:
        UserError: For a layer whose update is not s B A.
    """
    from peft.tuners.lora import Linear, LoraLayer

    parts = {}
    model: nn.Module = wrapped.get_base_model()
    for path, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        plain = type(module) is Linear and is_linear(module.base_layer)
        kind = type(getattr(module, "base_layer", None))
        exact = kind in (nn.Linear, Conv1D, LinearBeside) or kind.__name__ in PLAIN_LINEAR
        variant = "default" in getattr(module, "lora_variant", {}) or module.use_dora.get("default", False)
        if not (plain and exact) or variant or module.lora_bias.get("default", False):
            what = "a variant of LoRA (DoRA or the like)" if variant else "a bias" if plain and exact else "its kind"
            raise _refusal(folder, f"{path} ({type(module.base_layer).__name__}) has {what}")
        inner: Any = module.lora_A["default"].weight
        outer: Any = module.lora_B["default"].weight
        parts[path] = (inner.detach().float(), outer.detach().float() * module.scaling["default"])
    return parts


def _check_plain(folder: Path) -> None:
    """Refuse, before anything is loaded, an adapter whose settings say that it is more than s B A on linear layers."""
    if not is_adapter(folder):
        return  # told by `load_adapter`
    config = read_object(folder / ADAPTER_CONFIG)
    if config.get("peft_type", "LORA") != "LORA":
        raise _refusal(folder, f"peft_type is {config['peft_type']}")
    changed = [k for k in ("modules_to_save", "target_parameters", "trainable_token_indices", "layer_replication")
               if config.get(k)]  # fmt: skip
    if config.get("bias", "none") != "none":
        changed.append(f"bias={config['bias']}")
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start not in ("gaussian", "orthogonal", "eva"):
        changed.append(f"init_lora_weights={start}")  # took a part of the base's weights away
    changed += [k for k in ("use_dora", "lora_bias", "use_qalora", "alora_invocation_tokens") if config.get(k)]
    if changed:
        raise _refusal(folder, f"{', '.join(changed)} set")


def _refusal(folder: str | Path, what: str) -> UserError:
    return UserError(
        f"The adapter in {folder} is not plain LoRA on linear layers: {what}. It cannot stand beside the base in one "
        "product. Merge it (peft: model.merge_and_unload(), in float32), save the checkpoint, and give that folder as "
        "--evaluation.adapter with dtype=float32 (--evaluation.dtype)."
    )


@dataclass(frozen=True)
class Beside:
    """What a student's checkpoint was made of.

    Attributes:
        base: Model that the adapters stand beside, as the user named it.
        fingerprint: Of its content.
        adapters: PEFT folders, oldest first; none where all weights were trained, which never leave float32.
    """

    base: str
    fingerprint: str
    adapters: tuple[Path, ...]


def read_record(folder: str | Path) -> Beside | None:
    """What the checkpoint in a folder was made of; None if it does not say (any checkpoint of others)."""
    file = Path(folder) / RECORD
    if not file.is_file():
        return None
    record = read_object(file)
    with told(file, "the record of a student"):
        return Beside(record["base"], record["fingerprint"], tuple(Path(folder) / name for name in record["adapters"]))


def all_weights_trained(student: str | Path) -> bool:
    """Whether a student's folder is a checkpoint without adapters: nothing of it can stand beside a base."""
    made_of = read_record(student)
    return not is_adapter(student) and (made_of is None or not made_of.adapters)


def write_record(folder: Path, made_of: Beside) -> None:
    """Put base and adapters of a student beside its checkpoint: `RECORD`, and a copy of each adapter."""
    names = []
    for number, adapter in enumerate(made_of.adapters, start=1):
        names.append(f"beside-{number}")
        (folder / names[-1]).mkdir()
        for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
            shutil.copyfile(adapter / name, folder / names[-1] / name)
    base = typed_path(made_of.base)
    record = {
        "base": str(base.resolve()) if base.exists() else made_of.base,
        "fingerprint": made_of.fingerprint,
        "adapters": names,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
