"""The cost and the course of a finished run, read from its folder."""

from pathlib import Path

import numpy as np
import torch

from benchmarks.results_file import Table
from fedrec.federation import round_log, wire
from fedrec.federation.checkpoint import State
from fedrec.federation.clipping import clip_and_sum
from fedrec.federation.compression.eden import Eden, encode
from fedrec.federation.config import RunConfig, from_nested
from fedrec.federation.messages import Update
from fedrec.federation.round_log import SCORE
from fedrec.recsys.card import load_card
from fedrec.recsys.closed_form.packing import packed_shapes
from fedrec.recsys.closed_form.solutions import WEIGHTS
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.training.hybrid import split_adapter
from fedrec.recsys.training.local_training import ClientUpdates

FULL_PRECISION = 32


class RunCost(Table):
    """Rounds, bytes and seconds of a run, and its curve: (round, validation NDCG@10) of each validated round."""

    rounds: int  # of training
    best_round: int
    adapter_parameters: int
    bytes_up_per_client_round: int  # in a round of training; 0 without any
    bytes_up_per_client_run: int
    training_seconds: float
    curve: tuple[tuple[int, float], ...]


def run_cost(run: Path, users: int) -> RunCost:
    """Read what a finished run of so many users cost."""
    state, records, config = State.load(run), round_log.read(run), from_nested(load_card(run)["config"])
    assert state, "a finished run has a state"
    towers, closed_form = split_adapter(state.best)
    a_round = uplink_bytes(towers, config.bits) if config.method_row.trained else 0
    sums = len(config.summing_rounds) * sums_bytes(closed_form, config.sum_bits) if closed_form else 0
    return RunCost(
        rounds=config.training_rounds,
        best_round=state.best_round,
        adapter_parameters=_count_parameters(towers, closed_form, config),
        bytes_up_per_client_round=a_round,
        bytes_up_per_client_run=round(bytes_over_rounds(a_round, config, users)) + sums,
        training_seconds=round(sum(record["seconds"] for record in records), 1),
        curve=tuple((record["round"], record["validation"][SCORE]) for record in records if record["validation"]),
    )


def _count_parameters(towers: Adapter, closed_form: Adapter, config: RunConfig) -> int:
    """Count the shared numbers that a run learns."""
    learned = [*(towers.values() if config.method_row.trained else ()), *closed_form.values()]
    return sum(tensor.numel() for tensor in learned)


def bytes_over_rounds(a_round: int, config: RunConfig, users: int) -> float:
    """Compute the bytes that a client sends in all rounds of training, on average: rounds × probability of being drawn
    × bytes of a round."""
    return config.training_rounds * min(1, config.clients_per_round / users) * a_round


def uplink_bytes(adapter: Adapter, bits: int) -> int:
    """Count the bytes that one user's device sends in a round: the answer of a node with one user."""
    updates = ClientUpdates({name: torch.zeros(1, *tensor.shape) for name, tensor in adapter.items()}, torch.zeros(1))
    return wire.payload_bytes(wire.encode_update(clip_and_sum(updates, 1, 1.0, _coding(bits))))


def sums_bytes(closed_form: Adapter, bits: int) -> int:
    """Count the bytes of one user's sums, from which such a closed form is solved: sent in each exchange.

    The sums of so few events are exact in float32 (recsys/closed_form/statistics.py).
    """
    sums = {name: torch.zeros(shape) for name, shape in packed_shapes(*closed_form[WEIGHTS].shape).items()}
    coding = _coding(bits)
    codes = encode({name: tensor.unsqueeze(0) for name, tensor in sums.items()}, coding)[0] if coding else None
    return wire.payload_bytes(wire.encode_update(Update(1, 1, sums, {"learners": 0.0}, codes)))


def _coding(bits: int) -> Eden | None:
    """Draw the coding of one client; None for numbers as they are."""
    return Eden.draw(np.zeros(1, dtype=np.uint64), bits, seed=0, round=1) if bits < FULL_PRECISION else None
