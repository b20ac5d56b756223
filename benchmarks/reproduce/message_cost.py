"""What a run cost and how it went, read from its folder whenever it is asked for."""

from pathlib import Path

import numpy as np
import torch

from benchmarks.reproduce.jobs import Figures
from fedrec.federation import round_log, wire
from fedrec.federation.checkpoint import State
from fedrec.federation.clipping import clip_and_sum
from fedrec.federation.compression.eden import Eden
from fedrec.federation.rounds import SCORE
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.training.local_training import ClientUpdates

FULL_PRECISION = 32


def cost(run: Path, bits: int) -> Figures:
    """Rounds, bytes and seconds of a finished run, and its validation by rounds."""
    state, records = State.load(run), round_log.read(run)
    assert state, "a run that is finished has a state"
    return {
        "rounds": state.round,
        "best_round": state.best_round,
        "adapter_parameters": sum(tensor.numel() for tensor in state.best.values()),
        "bytes_up_per_client_round": uplink(state.best, bits),
        "training_seconds": round(sum(record["seconds"] for record in records), 1),
        "curve": [[record["round"], record["validation"][SCORE]] for record in records if record["validation"]],
    }


def uplink(adapter: Adapter, bits: int) -> int:
    """Bytes that a phone sends in a round: the answer of a node with one user."""
    fitted = ClientUpdates({name: torch.zeros(1, *tensor.shape) for name, tensor in adapter.items()}, torch.zeros(1))
    coding = Eden.draw(np.zeros(1, dtype=np.uint64), bits, seed=0, round=1) if bits < FULL_PRECISION else None
    return wire.payload_bytes(wire.encode_update(clip_and_sum(fitted, 1, 1.0, coding)))
