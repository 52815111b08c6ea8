"""Projected generation: keys and values kept within the capability subspace, in two equal forms.

``K~ = K P_K`` and ``V~ = V P_V`` at the target layers (arXiv:2605.22675, section 3.2). `project_kv` does it by hooks on
the K/V projections; `fold_projection` writes ``W' = P W``, ``b' = P b`` into their weights, which costs nothing at run
time and is restored bit for bit. Under PEFT the output is ``W x + s B A x``, so both W and B (``lora_B``) are folded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from spd_lightning.errors import UserError
from spd_lightning.model.anatomy import is_conv1d
from spd_lightning.subspace.layouts import Index
from spd_lightning.subspace.sites import KVSite, base_projection, kv_sites
from spd_lightning.subspace.subspace import CapabilitySubspace


def project(x: Tensor, basis: Tensor, strength: float = 1.0) -> Tensor:
    """Project key or value activations into a subspace: ``(1 - a) x + a x V V^T``.

    Factored, so the ``[kv_dim, kv_dim]`` projector is never built; half precision is computed in float32.

    Args:
        x: Raw projection output, ``[..., kv_dim]``, any float dtype.
        basis: Orthonormal columns ``[kv_dim, r]`` on the device of ``x``.
        strength: a, 0 to 1.

    Returns:
        Tensor of the shape, dtype and device of ``x``.

    Ranks:
        Pure; issues no collective.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    basis = basis.to(wide.dtype)
    projected = (wide @ basis) @ basis.T
    return (projected if strength == 1.0 else torch.lerp(wide, projected, strength)).to(x.dtype)


@contextmanager
def project_kv(model: nn.Module, subspace: CapabilitySubspace) -> Iterator[nn.Module]:
    """Project K and V at the subspace's sites while the context lasts, by hooks; prompt tokens included.

    Args:
        model: The model the subspace was extracted from, bare or with LoRA adapters.
        subspace: What to keep.

    Yields:
        The model. The hooks are removed in any case.

    Raises:
        UserError: If the subspace belongs to another model.

    Ranks:
        Each process for itself. Issues no collective.
    """
    subspace.check_model(model)
    sites = kv_sites(model, subspace.layers)
    handles = []
    try:
        for key in subspace.sites:
            device: Any = base_projection(sites[key].module).weight.device
            basis = subspace.bases[key].to(
                "cpu" if device.type == "meta" else device
            )  # meta: held elsewhere until used
            hook = _hook(sites[key], basis, subspace.strength)
            handles += [module.register_forward_hook(hook) for module in sites[key].modules]
        yield model
    finally:
        for handle in handles:
            handle.remove()


def _hook(site: KVSite, basis: Tensor, strength: float) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        projected = project(site.select(output), basis.to(output.device), strength)
        if site.index is None:
            return projected
        output = output.clone()
        output[..., site.index] = projected
        return output

    return hook


@contextmanager
def fold_projection(model: nn.Module, subspace: CapabilitySubspace) -> Iterator[nn.Module]:
    """Project K and V at the subspace's sites while the context lasts, by weights.

    Args:
        model: The model the subspace was extracted from, bare or with LoRA adapters (plain LoRA, merged or not).
        subspace: What to keep.

    Yields:
        The model. All weights are restored bit for bit in any case.

    Raises:
        UserError: If the subspace belongs to another model, or its weights cannot be folded (quantised, DoRA).

    Ranks:
        Each process for itself. Issues no collective.
    """
    folds = _folds(model, subspace)
    saved = [(weight, weight.detach().clone()) for weight in {id(w): w for w, *_ in folds}.values()]
    try:
        _fold(folds)
        yield model
    finally:
        with torch.no_grad():
            for weight, original in saved:
                weight.copy_(original)


def fold_into(model: nn.Module, subspace: CapabilitySubspace) -> nn.Module:
    """Fold the projection into the weights for good, to export an ordinary checkpoint of the same architecture.

    Args:
        model: The model the subspace was extracted from; changed in place.
        subspace: What to keep.

    Raises:
        UserError: As `fold_projection`.
    """
    _fold(_folds(model, subspace))
    return model


Fold = tuple[Tensor, int, Index, Tensor]  # weight, dimension of its output features, which of them, projector


def _folds(model: nn.Module, subspace: CapabilitySubspace) -> list[Fold]:
    """Everything that must be multiplied by a projector, checked before anything is changed."""
    subspace.check_model(model)
    sites = kv_sites(model, subspace.layers)
    folds: list[Fold] = []
    for key in subspace.sites:
        site, projector = sites[key], subspace.projector(*key)
        if any(any(getattr(module, "use_dora", {}).values()) for module in site.modules):
            raise UserError(
                f"{site.name} carries a DoRA adapter, whose output is not linear in its weights: the projection cannot "
                "be folded. Use plain LoRA (use_dora=False), or project_kv."
            )
        weights = {id(weight): (weight, dim) for module in site.modules for weight, dim in _output_weights(module)}
        for weight, dim in weights.values():
            if not weight.is_floating_point() or weight.dtype.itemsize < 2:  # float8 calls itself floating point
                raise UserError(
                    f"{site.name} holds weights of {weight.dtype}: a quantised projection cannot be folded. Load the "
                    "model with dtype=float32 (--data.dtype) or bfloat16, or use project_kv."
                )
            if weight.device.type == "meta":
                raise UserError(
                    f"The weights of {site.name} are held outside the devices (offloaded to the host's memory or the "
                    "disk), where the projection cannot be folded into them. Use more devices, or set "
                    "dtype=bfloat16 (--data.dtype) so that the model fits, or use project_kv."
                )
            folds.append((weight, dim, site.index, projector))
    return folds


def _output_weights(module: nn.Module) -> Iterator[tuple[Tensor, int]]:
    """Every tensor of a projection that is linear in its output, with the dimension of the output features."""
    base = base_projection(module)
    yield base.weight, 1 if is_conv1d(base) else 0  # type: ignore[misc]
    if isinstance(base.bias, Tensor):
        yield base.bias, 0
    lora_b: Any = getattr(module, "lora_B", {})
    for adapter in lora_b:
        yield lora_b[adapter].weight, 0
        if lora_b[adapter].bias is not None:
            yield lora_b[adapter].bias, 0


def _fold(folds: list[Fold]) -> None:
    with torch.no_grad():
        for weight, dim, index, projector in folds:
            rows = weight if dim == 0 else weight.T
            index = slice(None) if index is None else index
            exact = projector.to(weight.device) @ rows[index].double()
            rows[index] = exact.to(weight.dtype)
