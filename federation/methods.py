"""The methods that a run can train, as rows of one table: `METHODS`.

A new method is one file, with a `FederatedMethod` in it (recsys/training/method.py), and one row here, with a builder
that imports that file when it is called. Everything else that the federation needs to know of the method is in its row.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from fedrec.recsys.closed_form.config import ClosedFormConfig
from fedrec.recsys.embeddings import Embeddings
from fedrec.recsys.model.config import ModelConfig
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.training.baseline_config import FederatedBaselineConfig
from fedrec.recsys.training.closed_form import ClosedFormMethod
from fedrec.recsys.training.hybrid import HybridMethod
from fedrec.recsys.training.local_training import FitConfig
from fedrec.recsys.training.method import FederatedMethod, TwoTowerMethod


class MethodConfig(Protocol):
    """The settings of `RunConfig` that a method can be built from. (That file imports this one.)"""

    @property
    def seed(self) -> int: ...

    @property
    def mode(self) -> str: ...

    @property
    def held_out(self) -> int: ...

    @property
    def statistic_clip(self) -> float: ...

    @property
    def model(self) -> ModelConfig: ...

    @property
    def fit(self) -> FitConfig: ...

    @property
    def closed_form(self) -> ClosedFormConfig: ...

    @property
    def baseline(self) -> FederatedBaselineConfig: ...


Builder = Callable[[MethodConfig, Embeddings, Callable[[], TwoTowerModel]], FederatedMethod]
"""A function of the run's settings, the items' embeddings, and a function that returns the two-tower model."""


@dataclass(frozen=True)
class Method:
    """A row: how to build a method, and what the server and the nodes must know of it."""

    build: Builder
    largest_loss: Callable[[MethodConfig], float]
    """The largest loss that a client can have; a larger one is invalid, or means that training diverged."""
    min_events: int = 1
    """Events that a client needs to have an example, beside its held-out ones."""
    state_types: Callable[[], list[Any]] | None = None
    """The types in a client's state, as a node reads them from a file, each also as (type, former name); None if
    clients keep no state between rounds."""
    poolable: bool = False
    """Whether the clients of a round can be pooled into one (`mode` = 'central')."""
    quantisable: bool = False
    """Whether a client's change can be sent in few bits (`bits` below 32)."""
    servable: bool = False
    """Whether the adapter is the two-tower model's, so that a run leaves an artifact, and another can start from it."""
    trained: bool = True
    """Whether an adapter is trained in rounds."""
    summed: bool = False
    """Whether nodes send the sums of the closed form, once; the method is then a `HybridMethod`."""
    protocols: tuple[str, ...] = ("full",)
    """The protocols of the evaluation at the end of a run."""

    @property
    def has_client_state(self) -> bool:
        """Whether a node keeps a state of each client from round to round."""
        return self.state_types is not None


def _build_fedrec(config: MethodConfig, public: Embeddings, model: Callable[[], TwoTowerModel]) -> TwoTowerMethod:
    pooled = config.mode == "central"
    rows = public.trainable_rows
    return TwoTowerMethod(model(), public.matrix, rows, config.fit, config.seed, pooled, config.held_out)


def _build_hybrid(config: MethodConfig, public: Embeddings, model: Callable[[], TwoTowerModel]) -> FederatedMethod:
    rows, texts = public.trainable_rows, public.matrix.cpu()
    clip = config.statistic_clip
    closed_form = ClosedFormMethod(texts, rows, config.closed_form, config.seed, config.held_out, clip=clip)
    return HybridMethod(_build_fedrec(config, public, model), closed_form)


def _build_fedmf(config: MethodConfig, public: Embeddings, model: Callable[[], TwoTowerModel]) -> FederatedMethod:
    from fedrec.recsys.federated_baselines.method import MatrixFactorisation

    return MatrixFactorisation(config.baseline, len(public.matrix), config.seed)


def _build_pfedrec(config: MethodConfig, public: Embeddings, model: Callable[[], TwoTowerModel]) -> FederatedMethod:
    from fedrec.recsys.federated_baselines.method import DualPersonalisation

    return DualPersonalisation(config.baseline, len(public.matrix), config.seed)


def _baseline_state_types() -> list[Any]:
    from fedrec.recsys.federated_baselines.method import PersonalTable, UserState

    of_version_0_1 = [(UserState, "recsys.peers.Private"), (PersonalTable, "recsys.peers.Own")]
    return [UserState, PersonalTable, *of_version_0_1]


def _bound_of_softmax(config: MethodConfig) -> float:
    """Return the largest sampled softmax loss of cosines over a temperature T.

    The loss, log Σ exp(score) - score of the next item, with all N items at 1/T and the next one at -1/T, is at most
    log N + 2/T (recsys/training/loss.py: the drawn items stand for N - 1). A twentieth is added for products in
    bfloat16.
    """
    return 1.05 * (math.log(ITEMS) + 2 / config.model.temperature)


def _bound_of_baselines(config: MethodConfig) -> float:
    """Return a loss that only a client that has diverged can have: scores of the baselines are not bounded."""
    return 1e6


ITEMS = 2**32
"""More items than any catalogue holds."""

_BASELINE: dict[str, Any] = {
    "largest_loss": _bound_of_baselines,
    "state_types": _baseline_state_types,
    "protocols": ("full", "sampled-99"),  # their figures are published against sampled items
}

_TOWERS: dict[str, Any] = {"largest_loss": _bound_of_softmax, "min_events": 2, "servable": True}

METHODS = {
    "fedrec": Method(_build_fedrec, **_TOWERS, poolable=True, quantisable=True),
    "closed-form": Method(_build_hybrid, **_TOWERS, quantisable=True, trained=False, summed=True),
    "hybrid": Method(_build_hybrid, **_TOWERS, poolable=True, quantisable=True, summed=True),
    "fedmf": Method(_build_fedmf, **_BASELINE),
    "pfedrec": Method(_build_pfedrec, **_BASELINE),
}
"""The methods by name."""
