"""Tensors in files: read safely, checked against the rest of a run, and written in one step."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedrec.data.errors import InputError
from fedrec.data.storage.atomic_files import replaced_file
from fedrec.data.storage.reading import regular
from fedrec.recsys.model.config import ModelConfig
from fedrec.recsys.model.lora import Adapter, is_lora

_LAYER = re.compile(r"\.layers?\.(\d+)\.")


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors. Raises `InputError` if it is missing or damaged."""
    remedy = "copy it back, or train the run again"
    try:
        return load_file(regular(path, remedy))
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; {remedy}") from error
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{path} cannot be read ({error}); {remedy}") from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors, so that a crash leaves the old file or the new one."""
    with replaced_file(path) as partial:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)


def check_numbers(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Raise `InputError` if a tensor is not of float32, or holds a number that is not finite."""
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            raise InputError(f"{folder}: {name} is of {tensor.dtype}, not torch.float32; train the run again")
        if bad := int((~tensor.isfinite()).sum()):
            raise InputError(f"{folder}: {name} holds {bad:,} numbers that are not finite; train the run again")


def check_vectors(vectors: Mapping[str, Tensor], items: int, folder: Path) -> Tensor:
    """Return the item vectors (N, E) of a catalogue of N items, beside which there may be a `bias` (N,). Raises
    `InputError` for any other tensors."""
    shapes = {name: tuple(tensor.shape) for name, tensor in vectors.items()}
    width = vectors["vectors"].shape[-1:] if "vectors" in vectors else ()
    if shapes not in ({"vectors": (items, *width)}, {"vectors": (items, *width), "bias": (items,)}):
        raise InputError(f"{folder}: item vectors of {shapes}, for {items:,} items; copy the run again")
    return vectors["vectors"]


def check_shapes(tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], what: str, folder: Path) -> None:
    """Raise `InputError` unless tensors have these names and shapes; `what` they belong to is named."""
    there = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(wanted.keys() | there.keys()):
        if wanted.get(name) != there.get(name):
            raise InputError(
                f"{folder}: {name} of the {what} has the shape {there.get(name)}, and not {wanted.get(name)} as the "
                "card states; copy the run again"
            )


def check_adapter(adapter: Adapter, config: ModelConfig, width: int, folder: Path) -> None:
    """Check the shapes of an adapter against the model that the card describes, for item vectors of `width`.

    Raises `InputError`; so nothing is allocated whose size only the card states.
    """
    there = {name: tuple(tensor.shape) for name, tensor in adapter.items()}
    wanted: dict[str, tuple[int, ...]] = {
        "item.down": (config.item_rank, width),
        "item.up": (width, config.item_rank),
        "user.down": (config.user_rank, *there.get("user.down", ())[1:2]),  # D, which the encoder's files tell
        "user.up": (width, config.user_rank),
    }
    wanted |= {name: _pair_shape(name, there, config.lora_rank) for name in there if is_lora(name)}
    check_shapes(adapter, wanted, "adapter", folder)
    layers = {found[1] for name in there if (found := _LAYER.search(name))}
    if len(layers) != config.layers:
        raise InputError(
            f"{folder}: the adapter has {len(layers)} layers, not {config.layers} as the card states; copy the "
            "run again"
        )


def _pair_shape(name: str, there: Mapping[str, tuple[int, ...]], rank: int) -> tuple[int, ...]:
    """Return the shape that one matrix of a low-rank pair should have; it is empty if the other one is missing."""
    down, up = (f"{name.rpartition('.')[0]}.lora_{side}" for side in "AB")
    if not {down, up} <= there.keys():
        return ()
    return (rank, *there[name][1:2]) if name == down else (*there[name][:1], rank)
