"""Federated dropout: what travels shrinks, and what is left out stays as it is."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.dropout import Dropout
from federation.update import Update

ADAPTER = {
    "item.down": torch.arange(12.0).view(4, 3),
    "item.up": torch.arange(12.0).view(3, 4) + 100,
    "layer.lora_A": torch.arange(6.0).view(2, 3),
    "layer.lora_B": torch.arange(10.0).view(5, 2),
    "bias": torch.ones(3),
}


def test_without_dropout_the_adapter_is_itself() -> None:
    whole = Dropout.drawn(ADAPTER, 0.0, seed=0, round=1)
    assert all(whole.narrowed(ADAPTER)[name] is tensor for name, tensor in ADAPTER.items())
    update = Update(1, 2, {name: tensor.double() for name, tensor in ADAPTER.items()}, {})
    assert all(whole.widened(update, ADAPTER).deltas[name] is update.deltas[name] for name in ADAPTER)


def test_half_of_the_units_travel_and_the_second_factor_makes_up_for_the_rest() -> None:
    dropout = Dropout.drawn(ADAPTER, 0.5, seed=0, round=1)
    narrow = dropout.narrowed(ADAPTER)
    units = dropout.kept["item.down"].tolist()
    assert {name: tuple(tensor.shape) for name, tensor in narrow.items()} == {
        "item.down": (2, 3),
        "item.up": (3, 2),
        "layer.lora_A": (1, 3),
        "layer.lora_B": (5, 1),
        "bias": (3,),
    }
    assert narrow["item.down"].tolist() == [[3.0 * unit, 3.0 * unit + 1, 3.0 * unit + 2] for unit in units]
    assert narrow["item.up"][0].tolist() == [(100.0 + unit) * 2 for unit in units]


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 0.95), st.integers(0, 9), st.integers(1, 99))
def test_what_clients_add_to_a_narrow_adapter_is_what_it_then_holds(share: float, seed: int, round: int) -> None:
    """Narrowing the wide adapter after a change gives the narrow adapter after it; units left out have not moved."""
    dropout = Dropout.drawn(ADAPTER, share, seed, round)
    narrow = dropout.narrowed(ADAPTER)
    change = {name: torch.ones_like(tensor).double() for name, tensor in narrow.items()}
    wide = dropout.widened(Update(round, 1, change, {"loss": 1.0}), ADAPTER)
    moved = {name: tensor + wide.deltas[name] for name, tensor in ADAPTER.items()}
    for name, tensor in dropout.narrowed(moved).items():
        torch.testing.assert_close(tensor, narrow[name] + change[name])
    left_out = sorted(set(range(4)) - set(dropout.kept["item.down"].tolist()))
    assert torch.equal(moved["item.up"][:, left_out], ADAPTER["item.up"][:, left_out].double())


def test_units_are_drawn_anew_each_round_and_evenly() -> None:
    counts = torch.zeros(4)
    for round in range(400):
        counts[Dropout.drawn(ADAPTER, 0.5, seed=3, round=round).kept["item.down"]] += 1
    assert counts.tolist() == pytest.approx([200] * 4, abs=40)
