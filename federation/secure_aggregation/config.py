"""The settings of secure aggregation."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval
from pydantic import ConfigDict


@dataclass(frozen=True)
class SecureAggregationConfig:
    """Whether sums are masked, and the smallest group whose sum is unmasked."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    secure: bool = False
    """Secure aggregation: nodes mask their sums, so that the server learns the sums over a group of nodes alone."""
    secure_threshold: Annotated[float, Interval(gt=0.5, le=1)] = 0.66
    """Share of a group's nodes, and of its clients, that must stay until its sum is unmasked; with fewer the sum is
    lost."""
    secure_clients: Annotated[int, Ge(1)] = 16
    """Smallest number of clients in a sum that is unmasked, or that a node takes part in."""
