"""The integers of each kind of order under secure aggregation: their units, and how large they can become."""

from fedrec.federation import wire
from fedrec.federation.config import RunConfig
from fedrec.federation.messages import Order
from fedrec.federation.privacy.shares import Sensitivity
from fedrec.federation.secure_aggregation.integers import UNIT, Layout, check_room
from fedrec.federation.validate_update import COUNTED, RANKED, SUMMED, TRAINED
from fedrec.recsys.closed_form.norm_bounds import Bounds
from fedrec.recsys.model.lora import Adapter

METRICS = {wire.TRAIN: TRAINED, wire.STATISTICS: SUMMED, wire.EVALUATE: RANKED, wire.EXPOSURE: COUNTED}
"""The metrics in an answer to each kind of order."""


def layout_of(kind: str, template: Adapter, bounds: Bounds | None) -> Layout:
    """Build the layout of an answer with tensors like those of a template; `bounds` are those of statistics."""
    shapes = {name: tensor.shape for name, tensor in template.items()}
    return Layout(shapes, sorted(METRICS[kind]), bounds.entry_units if bounds else {})


def sensitivity_of(kind: str, order: Order, template: Adapter, bounds: Bounds | None) -> Sensitivity:
    """Return what a user adds at most to an answer with tensors like those of a template: the first numbers of its
    layout."""
    if kind == wire.STATISTICS:
        return Sensitivity.of_statistics(bounds)
    return Sensitivity.of_change(order.clip, sum(tensor.numel() for tensor in template.values()))


def check_capacity(kind: str, clients: int, config: RunConfig, bounds: Bounds | None) -> None:
    """Raise `InputError` unless the sums of so many clients stay below 2⁶³ units.

    The room that is left is 2⁶² at least, and the noise of all nodes below 2⁵⁵ (federation/privacy/noise.py).
    """
    largest = max(config.clip, config.largest_loss) if kind == wire.TRAIN else 1.0
    check_room(clients, max(largest / UNIT, bounds.largest_count if bounds else 1.0))
