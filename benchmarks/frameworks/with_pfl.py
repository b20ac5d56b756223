"""A round in pfl-research: https://github.com/apple/pfl-research. Its documented parts: FedAvg, SGD, norm clipping."""

# pyright: reportMissingImports=false

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm import FederatedAveraging, NNAlgorithmParams
from pfl.common_types import Population
from pfl.context import CentralContext
from pfl.data import FederatedDataset, get_user_sampler
from pfl.data.dataset import Dataset
from pfl.hyperparam import NNTrainHyperParams
from pfl.model.pytorch import PyTorchModel
from pfl.privacy import CentrallyAppliedPrivacyMechanism, NormClippingOnly
from torch import Tensor, nn

from benchmarks.frameworks.work import ClientWork
from fedrec.data.shard import Cohort
from fedrec.recsys.model.lora import Adapter


class Towers(nn.Module):
    """The two-tower model with the loss of one client, as pfl asks for."""

    def __init__(self, work: ClientWork) -> None:
        super().__init__()
        self.work, self.towers = work, work.trainer.model
        with torch.no_grad():
            for name, parameter in self.trained().items():
                parameter.copy_(work.adapter[name].unsqueeze(0))

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the adapter's parameters, each of shape (1, …)."""
        return {name: p for name, p in self.towers.named_parameters() if p.requires_grad}

    def loss(self, items: Tensor, mask: Tensor, read: Tensor, salts: np.ndarray) -> Tensor:
        """Compute the mean loss of one client's examples (1, B, L)."""
        client = Cohort(items.numpy(), mask.numpy(), read.numpy(), salts)
        return self.work.trainer.client_losses(dict(self.trained()), client, self.work.key).sum()

    def metrics(self) -> dict[str, float]:
        """Return no metrics: nothing is evaluated."""
        return {}


def user_datasets(work: ClientWork) -> FederatedDataset:
    """Build pfl's users, each with its histories in memory.

    The longest come first, and each process takes the next: all have equal shares.
    """

    def dataset_of(user: int) -> Dataset:
        client = work.clients[user]
        columns = tuple(torch.from_numpy(column) for column in (client.items, client.mask, client.read))
        return Dataset(columns, train_kwargs={"salts": client.salts})

    users = [dataset_of(user) for user in range(len(work.clients))]
    sampler = get_user_sampler("minimize_reuse", range(len(users)))  # each user once in a round
    return FederatedDataset(users.__getitem__, sampler)


def build_round(work: ClientWork) -> Callable[[], Adapter]:
    """Build a function that runs a round, and returns the summed changes of all processes."""
    module, users, rate = Towers(work), user_datasets(work), work.trainer.config.local_rate
    model = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.trained().values(), lr=1.0))
    clipping = CentrallyAppliedPrivacyMechanism(NormClippingOnly(order=2, clipping_bound=work.clip))
    training = NNTrainHyperParams(local_num_epochs=1, local_learning_rate=rate, local_batch_size=None)
    one_round = CentralContext(
        current_central_iteration=1,
        do_evaluation=False,
        cohort_size=len(work.clients),
        population=Population.TRAIN,
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=1, evaluation_frequency=1, train_cohort_size=len(work.clients), val_cohort_size=None
        ),
        model_train_params=training,
    )
    backend = SimulatedBackend(training_data=users, val_data=users, postprocessors=[clipping])
    gather = partial(backend.gather_results, model, FederatedAveraging(), central_context=one_round)

    def run_round() -> Adapter:
        changes, _ = gather()
        return {name.removeprefix("towers."): change.squeeze(0) for name, change in changes.items()}

    return run_round
