"""The settings of asynchronous rounds, and of the simulated devices that answer in them."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval
from pydantic import ConfigDict


@dataclass(frozen=True)
class BufferConfig:
    """Whether rounds are asynchronous, and the simulated fleet of devices that answers in them."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    buffer_size: Annotated[int, Ge(0)] = 0
    """Answers of clients after which the server steps while others of the clients_per_round are still at work
    (FedBuff). A round is then one such step. 0: synchronous rounds, of which each waits for all of its clients."""
    staleness_exponent: Annotated[float, Interval(ge=0, le=10)] = 0.5
    """The weight of a change is (1 + staleness) to minus this power: its staleness is the number of steps that the
    server has made since the client began. 0: all changes count alike."""
    max_staleness: Annotated[int, Interval(ge=0, le=1000)] = 20
    """Steps of the server after which a client that is still at work is given up; as many older adapters are kept, in
    the checkpoint too. 0: what has not answered by the step is given up (over-selection)."""
    fleet_slowness: Annotated[float, Interval(ge=0, le=4)] = 0.0
    """Zipf's exponent of the simulated devices' time for a client's work, of which the fastest device needs 1: the
    device of rank r among U, from the slowest, needs (U / r) to this power. 0: all are equally fast."""
    fleet_absence: Annotated[float, Interval(ge=0, le=4)] = 0.0
    """Zipf's exponent of the simulated devices' absence: in each unit of time, a device of rank r among U, from the
    rarest, is there with a chance of (r / U) to this power. 0: all are always there."""

    @property
    def asynchronous(self) -> bool:
        """Whether the server steps before all clients at work have answered."""
        return self.buffer_size > 0
