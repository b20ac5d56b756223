"""The clients' work in a framework: what the driver writes down, and a framework's process opens."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.speed.one_client import train_alone
from fedrec.data.dataset import Dataset
from fedrec.data.randomness import DrawKey
from fedrec.data.shard import Cohort
from fedrec.federation.config import RunConfig, from_flat, to_flat
from fedrec.federation.messages import Order
from fedrec.federation.setup import TrainingSetup
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.tensors import load_tensors, save_tensors
from fedrec.recsys.training.local_training import LocalTrainer

TASK, ADAPTER, SUM = "task.json", "adapter.safetensors", "sum-{way}.safetensors"


@dataclass(frozen=True, eq=False)
class ClientWork:
    """The clients of a round, and what each trains; every framework opens the same."""

    trainer: LocalTrainer
    adapter: Adapter
    clients: tuple[Cohort, ...]  # a cohort of one for each
    key: DrawKey
    clip: float
    workers: int  # threads or processes that a framework may use

    @classmethod
    def open(cls, folder: Path) -> "ClientWork":
        """Open the work that `write_task` wrote. Raises `InputError`."""
        task = json.loads((folder / TASK).read_text("utf-8"))
        config = from_flat(task["settings"])
        setup = TrainingSetup(Dataset.open(Path(task["data"])), config)
        cohort = setup.dataset.shard.training_windows(
            task["users"], config.model.history + 1, config.seed, task["round"]
        )
        trainer = LocalTrainer(setup.model, setup.embeddings.matrix, config.fit)
        clients = tuple(client for _, client in cohort.blocks(1, 1))
        key = DrawKey(config.seed, task["round"])
        return cls(trainer, load_tensors(folder / ADAPTER), clients, key, task["clip"], task["workers"])

    def change_of(self, client: int, adapter: Adapter) -> Adapter:
        """Train a client from `adapter`, and return its clipped change."""
        return train_alone(self.trainer, adapter, self.clients[client], self.key, self.clip)[0]

    def to_vector(self, adapter: Adapter) -> Tensor:
        """Join an adapter's tensors in one vector, (P,)."""
        return torch.cat([adapter[name].reshape(-1) for name in self.adapter])

    def from_vector(self, vector: Tensor) -> Adapter:
        """Divide a vector (P,) into an adapter's tensors, as views of it."""
        parts = vector.split([tensor.numel() for tensor in self.adapter.values()])
        return {name: part.view_as(self.adapter[name]) for name, part in zip(self.adapter, parts, strict=True)}


def write_task(folder: Path, data: Path, config: RunConfig, order: Order, adapter: Adapter, workers: int) -> None:
    """Write what a framework's process needs to train an order's users from `adapter`."""
    save_tensors(folder / ADAPTER, adapter)
    task = {
        "data": str(data),
        "settings": to_flat(config),
        "users": order.users.tolist(),
        "round": order.round,
        "clip": order.clip,
        "workers": workers,
    }
    (folder / TASK).write_text(json.dumps(task), encoding="utf-8")


def sum_file(folder: Path, way: str) -> Path:
    """Return the path of the sum of a way's last round."""
    return folder / SUM.format(way=way)
