"""The settings of the federated baselines: all that the rest of the project needs to know of them."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt
from pydantic import ConfigDict


@dataclass(frozen=True)
class FederatedBaselineConfig:
    """How the federated baselines learn. The defaults are their authors' settings."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    baseline_dim: Annotated[int, Ge(1)] = 32
    """Federated baselines: width of an item vector."""
    baseline_negatives: Annotated[int, Ge(1)] = 4
    """Federated baselines: negatives sampled for each of a client's own items, in every round."""
    baseline_batch: Annotated[int, Ge(1)] = 256
    """Federated baselines: examples in the batch of a local step."""
    baseline_rate: Annotated[float, Gt(0)] = 0.1
    """Federated baselines: learning rate of the user's own parameters."""
    baseline_item_rate: Annotated[float, Gt(0)] = 8.0
    """Federated baselines: learning rate of the shared table; it is multiplied by the number of items."""
    baseline_leak: bool = False
    """Federated baselines: never sample a held-out item as a negative, as the authors' code does. That leaks the
    held-out item."""
