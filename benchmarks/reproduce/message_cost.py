"""The cost and the course of a finished run, read from its folder."""

from pathlib import Path

import numpy as np
import torch

from benchmarks.results_file import Table
from fedrec.federation import round_log, wire
from fedrec.federation.checkpoint import State
from fedrec.federation.clipping import clip_and_sum
from fedrec.federation.compression.eden import Eden
from fedrec.federation.rounds import SCORE
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.training.local_training import ClientUpdates

FULL_PRECISION = 32


class RunCost(Table):
    """Rounds, bytes and seconds of a run, and its curve: (round, validation NDCG@10) of each validated round."""

    rounds: int
    best_round: int
    adapter_parameters: int
    bytes_up_per_client_round: int
    training_seconds: float
    curve: tuple[tuple[int, float], ...]


def run_cost(run: Path, bits: int) -> RunCost:
    """Read what a finished run cost; `bits` is the precision of its updates."""
    state, records = State.load(run), round_log.read(run)
    assert state, "a finished run has a state"
    return RunCost(
        rounds=state.round,
        best_round=state.best_round,
        adapter_parameters=sum(tensor.numel() for tensor in state.best.values()),
        bytes_up_per_client_round=uplink_bytes(state.best, bits),
        training_seconds=round(sum(record["seconds"] for record in records), 1),
        curve=tuple((record["round"], record["validation"][SCORE]) for record in records if record["validation"]),
    )


def uplink_bytes(adapter: Adapter, bits: int) -> int:
    """Count the bytes that one user's device sends in a round: the answer of a node with one user."""
    updates = ClientUpdates({name: torch.zeros(1, *tensor.shape) for name, tensor in adapter.items()}, torch.zeros(1))
    coding = Eden.draw(np.zeros(1, dtype=np.uint64), bits, seed=0, round=1) if bits < FULL_PRECISION else None
    return wire.payload_bytes(wire.encode_update(clip_and_sum(updates, 1, 1.0, coding)))
