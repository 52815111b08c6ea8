"""Stage 3 over several devices: every weight is spread over the processes and gathered for one layer at a time.

PyTorch's ``fully_shard`` (FSDP2) keeps each weight a tensor of its own, so frozen and trained weights, and a bf16 base
with a float32 adapter, may share a layer; the older wrapper flattens them together and cannot.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from spd_lightning.model.anatomy import decoder_layers


def shard(model: nn.Module, mesh: DeviceMesh, gather_dtype: torch.dtype | None = None) -> None:
    """Spread a model over the processes of a mesh, decoder layer by decoder layer; the rest is one more unit.

    Args:
        model: A causal language model, bare or with adapters; changed in place and moved to the mesh's device.
        mesh: One dimension.
        gather_dtype: Dtype in which weights are gathered and layers compute; None for that of the weights. Gradients
            are always summed in float32.

    Ranks:
        Every process, with equal weights.
    """
    policy = MixedPrecisionPolicy(param_dtype=gather_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in decoder_layers(model):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def is_sharded(model: nn.Module) -> bool:
    """Whether this process holds only a part of the weights."""
    return any(isinstance(p, DTensor) for p in model.parameters())


def whole(tensor: Tensor) -> Tensor:
    """A tensor gathered from all processes (collective), or itself if it is not spread."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """The trained weights, whole and on the CPU.

    Ranks:
        Collective where the model is sharded: every process calls it and gets all of them.
    """
    return {name: whole(p.detach()).cpu() for name, p in model.named_parameters() if p.requires_grad}
