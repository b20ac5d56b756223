"""Low-rank adapters with a client axis, and their conversion to and from PEFT's format.

LoRA: Hu et al. 2021, arXiv:2106.09685. Here the two factors have a leading axis of clients, so that one pass
through the frozen weight serves a whole cohort, each client with its own factors.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedrec.data.errors import InputError
from fedrec.recsys.model.config import ModelConfig
from fedrec.recsys.model.per_client_ops import client_linear

Adapter = dict[str, Tensor]
"""The parameters that the federation learns: name → tensor, without a client axis."""

Stack = dict[str, Tensor]
"""One adapter per client: the same names, each tensor with a leading axis C."""


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Compute a hash of names and bytes: it is equal if two runs learned exactly the same."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def stacked(adapter: Mapping[str, Tensor], clients: int) -> Stack:
    """Repeat one adapter `clients` times, as a view without a copy."""
    return {name: tensor.expand(clients, *tensor.shape) for name, tensor in adapter.items()}


def with_changes(adapter: Mapping[str, Tensor], changes: Stack, clients: int) -> Stack:
    """Return each client's adapter: the shared one plus the client's own changes (C, …) of some of its tensors."""
    return stacked(adapter, clients) | {name: adapter[name] + change for name, change in changes.items()}


def kaiming_uniform(shape: Iterable[int], generator: torch.Generator) -> nn.Parameter:
    """Return a down-projection's initial value: uniform as in PEFT, but from an explicit generator."""
    tensor = torch.empty(1, *shape)
    bound = 1 / math.sqrt(tensor.shape[-1])  # Kaiming uniform with a = √5, as torch.nn.Linear
    return nn.Parameter(tensor.uniform_(-bound, bound, generator=generator))


class StackedLinear(nn.Module):
    """A frozen linear layer with one low-rank pair per client added: y = W x + scale · B_c A_c x.

    The module holds one client's pair; `torch.func.functional_call` puts a stack in its place.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base
        self.scale = alpha / rank
        self.lora_A = kaiming_uniform((rank, base.in_features), generator)
        self.lora_B = nn.Parameter(torch.zeros(1, base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer with each client's own pair: (C·B, L, in) → (C·B, L, out)."""
        y = F.linear(x, self.base.weight, self.base.bias)
        clients = self.lora_A.shape[0]
        low = client_linear(x.reshape(clients, -1, x.shape[-1]), self.lora_A)  # (C, B·L, R)
        high = client_linear(low, self.lora_B)  # (C, B·L, out)
        return torch.add(y, high.view_as(y).to(y.dtype), alpha=self.scale)


def inject_lora(module: nn.Module, targets: Iterable[str], rank: int, alpha: float, generator: torch.Generator) -> None:
    """Replace every linear layer whose last name is among `targets` by a `StackedLinear`, as PEFT does.

    Raises `InputError` if a target is no linear layer of the module.
    """
    targets = set(targets)
    last_names = {name.rpartition(".")[2] for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}
    if not targets or (unknown := targets - last_names):
        named = sorted(unknown)[0] if targets else ""
        raise InputError(
            f"lora_targets: {named!r} is no linear layer here; choose from {', '.join(sorted(last_names))}"
        )
    for name, layer in list(module.named_modules()):
        parent, _, last = name.rpartition(".")
        if last in targets and isinstance(layer, nn.Linear):
            setattr(module.get_submodule(parent), last, StackedLinear(layer, rank, alpha, generator))


_OURS, _PEFT = "user.encoder.", "base_model.model."


def is_lora(name: str) -> bool:
    """Tell whether a parameter is one of the user tower's low-rank pairs: PEFT's format holds these alone."""
    return name.startswith(_OURS)


def to_peft(adapter: Adapter) -> Adapter:
    """Select the user tower's low-rank pairs, under the names of PEFT's `adapter_model.safetensors`."""
    return {f"{_PEFT}{name.removeprefix(_OURS)}.weight": tensor for name, tensor in adapter.items() if is_lora(name)}


def from_peft(tensors: Mapping[str, Tensor]) -> Adapter:
    """Rename the tensors of PEFT's `adapter_model.safetensors` to the adapter's names: the inverse of `to_peft`."""
    return {f"{_OURS}{name.removeprefix(_PEFT).removesuffix('.weight')}": tensor for name, tensor in tensors.items()}


def peft_config(config: ModelConfig, encoder: Mapping[str, Any], seed: int, names: Iterable[str]) -> dict[str, Any]:
    """Build the config by which `peft.PeftModel.from_pretrained` applies the LoRA pairs to the encoder's first layers.

    encoder: the user tower's, as in the card; names: the adapter's, which tell what the encoder calls its layers.
    A random initialisation gets a name that no model has, so that the pairs are not applied to pretrained layers by
    mistake.
    """
    random = config.user_encoder_init == "random"
    return {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": f"{encoder['name']} (random weights, seed {seed})" if random else encoder["name"],
        "revision": None if random else encoder["revision"],
        "r": config.lora_rank,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(config.lora_targets),
        "layers_to_transform": list(range(config.layers)),
        "layers_pattern": "layers" if any(".layers." in name for name in names) else "layer",
        "inference_mode": True,
    }


def merge_adapter(weights: Mapping[str, Tensor], adapter: Adapter, scale: float) -> dict[str, Tensor]:
    """Add the user tower's pairs to the frozen weights: W + scale · B A, as PEFT's `merge_and_unload`."""
    merged = dict(weights)
    for name, down in adapter.items():
        if is_lora(name) and name.endswith(".lora_A"):
            layer = name.removesuffix(".lora_A")
            weight = f"{layer.removeprefix(_OURS)}.weight"
            merged[weight] = merged[weight] + scale * (adapter[f"{layer}.lora_B"] @ down)
    return merged
