"""The answers that the server accepts. Each is validated whole before it is added up, as orders are on a node
(federation/validate_order.py). Nothing here knows of Flower."""

from collections.abc import Mapping, Set
from math import isfinite, log2

import numpy as np

from fedrec.federation.clipping import norms
from fedrec.federation.config import RunConfig
from fedrec.federation.messages import Order, Update
from fedrec.federation.privacy.shares import Sensitivity
from fedrec.recsys.closed_form.norm_bounds import Bounds, norm
from fedrec.recsys.evaluation.ranking import CUTOFFS, metric_sums
from fedrec.recsys.exposure_bound import LISTED
from fedrec.recsys.model.lora import Adapter

TRAINED = {"loss", "learners", "clipped", "diverged"}
SUMMED = {"learners"}
RANKED = metric_sums(np.zeros(0)).keys()
COUNTED = {"users"}
"""The metrics that an answer to each kind of order holds, no more and no fewer."""

SLACK = 1e-6
"""Rounding of a metric, for each user."""


def validate_update(update: Update, order: Order, template: Adapter, config: RunConfig) -> Update:
    """Return the update if it can be an answer to the order. Raises `ValueError` that names the fault.

    `template` is the adapter that the order was sent with, and empty after an evaluation.
    """
    check_form(update, order, template, config)
    check_plausible(update, order, template, config)
    return update


CODED = 2.0
"""The largest entry of coded sums, relative to that of the sums themselves."""


def validate_statistics(update: Update, order: Order, bounds: Bounds, config: RunConfig) -> Update:
    """Return the update if it can be an answer to an order to sum statistics. Raises `ValueError` that names the fault.

    Of sums in few bits only the size is checked.
    """
    users = len(order.users)
    _answers(update, order, users)
    _check_codes(update, users, config.sum_bits)
    _metrics(update.sums, SUMMED, users)
    if not 0 <= update.sums["learners"] <= users:
        raise ValueError(f"a sum of {update.sums['learners']:g} for the metric learners of {users} users")
    _whole(update.sums, ("learners",))
    validate_sums(update.deltas, int(update.sums["learners"]), bounds, config)
    return update


def validate_exposure(update: Update, order: Order, template: Adapter) -> Update:
    """Return the update if some users can be shown that. Raises `ValueError` that names the fault."""
    _answers(update, order, len(order.users))
    _tensors(update.deltas, template)
    _metrics(update.sums, COUNTED, len(order.users))
    _whole(update.sums, ("users",))
    users, counts = update.sums["users"], update.deltas
    if not 0 <= users <= len(order.users):
        raise ValueError(f"a sum of {users:g} for the metric users of {len(order.users)} users")
    for name, tensor in (*counts.items(), ("margins of an item", counts["margins"].sum(1))):
        if (tensor != tensor.round()).any() or (tensor < 0).any() or (tensor > users).any():
            raise ValueError(f"{name} holds numbers that are no counts of {users:g} users")
    if counts["shown"].sum() > LISTED * users:
        raise ValueError(f"{float(counts['shown'].sum()):g} items in the lists of {users:g} users, of {LISTED} each")
    return update


def validate_noised(update: Update, order: Order, template: Adapter, sensitivity: Sensitivity, excess: float) -> Update:
    """Return a sum to which the nodes have added noise, of `excess` times the order's variance, if it can be an answer
    to the order. Raises `ValueError` that names the fault.

    It has no metrics, which are exact otherwise, and the noise hides all that could be checked but its length.
    """
    users = len(order.users)
    _answers(update, order, users)
    _tensors(update.deltas, template)
    if any(update.sums.values()):
        raise ValueError(f"answered with metrics, which have no noise: {sorted(update.sums)[:5]}")
    length = norm(update.deltas)
    most = users * sensitivity.longest + sensitivity.length_of_noise(order.noise, excess)
    if length > most:
        raise ValueError(f"a sum of length {length:.3g} from {users} users, where {most:.3g} is the most with noise")
    return update


def validate_sums(sums: Adapter, learners: int, bounds: Bounds, config: RunConfig) -> None:
    """Raise `ValueError` that names the fault if no `learners` users can have such sums, as they travel."""
    _tensors(sums, bounds.template)
    if config.sum_bits < 32:
        bounds.check_size(sums, learners, CODED)
    else:
        bounds.check(sums, learners)


def check_form(update: Update, order: Order, template: Adapter, config: RunConfig) -> None:
    """Check what any answer must have: the round and the users, names and shapes, and finite numbers.

    An answer that is masked for secure aggregation must pass this, too. Raises `ValueError`.
    """
    clients = _clients(order, template, config)
    _answers(update, order, clients)
    if template:
        _check_codes(update, clients, config.bits)
    elif update.codes is not None:
        raise ValueError(f"answered with codes, of {clients} users")
    _tensors(update.deltas, template)
    _metrics(update.sums, TRAINED if template else RANKED, clients)


def check_plausible(update: Update, order: Order, template: Adapter, config: RunConfig) -> None:
    """Check that some clients can have such sums and such a change, so that a node can lie only within its clients' own
    bounds.

    The numbers of a masked answer look random: under secure aggregation this can be checked of the sum of all nodes
    alone. Raises `ValueError`.
    """
    clients = _clients(order, template, config)
    for name, value in update.sums.items():
        if value < 0 or (name != "loss" and value > clients):
            raise ValueError(f"a sum of {value:g} for the metric {name} of {clients} users")
    if template:
        _trained(update, order.clip, config.largest_loss)
    else:
        _ranked(update.sums, SLACK * clients)


def _clients(order: Order, template: Adapter, config: RunConfig) -> int:
    """Count the clients of an answer: in central mode the users of a training order are one."""
    return 1 if config.mode == "central" and template else len(order.users)


def _answers(update: Update, order: Order, clients: int) -> None:
    if update.round != order.round or update.users != clients:
        raise ValueError(f"answered for round {update.round} and {update.users} users, not {order.round} and {clients}")


def _check_codes(update: Update, clients: int, bits: int) -> None:
    if (update.codes is not None) != (bits < 32 and clients == 1):
        raise ValueError(f"answered {'with' if update.codes else 'without'} codes, of {clients} users")


def _metrics(sums: Mapping[str, float], names: Set[str], clients: int) -> None:
    if sums.keys() != names:
        raise ValueError(f"answered with other metrics: {sorted(sums)[:5]}")
    for name, value in sums.items():
        if not isfinite(value):
            raise ValueError(f"a sum of {value:g} for the metric {name} of {clients} users")


def _tensors(deltas: Adapter, template: Adapter) -> None:
    if deltas.keys() != template.keys():
        raise ValueError(f"answered with other tensors: {sorted(deltas.keys() ^ template.keys())[:3]}")
    for name, tensor in deltas.items():
        if tensor.shape != template[name].shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)} where {tuple(template[name].shape)} belongs")
        if not tensor.isfinite().all():
            raise ValueError(f"{name} holds values that are not finite")


def _trained(update: Update, clip: float, worst: float) -> None:
    """Raise `ValueError` if those who learned cannot have such a loss, or so long a change."""
    sums = update.sums
    _whole(sums, ("learners", "clipped", "diverged"))
    learned = sums["learners"] - sums["diverged"]
    if sums["clipped"] > learned:
        raise ValueError(f"a sum of {sums['clipped']:g} for the metric clipped of {learned:g} users who learned")
    if sums["loss"] > learned * worst:
        raise ValueError(
            f"a sum of {sums['loss']:g} for the metric loss of {learned:g} users who learned, each at most {worst:.3g}"
        )
    length = float(norms({name: tensor.unsqueeze(0) for name, tensor in update.deltas.items()})[0])
    if length > learned * clip * (1 + 1e-3):
        raise ValueError(f"a sum of length {length:.3g} from {learned:g} users who learned, each clipped to {clip:g}")


def _ranked(sums: Mapping[str, float], slack: float) -> None:
    """Raise `ValueError` unless some ranks of so many users add up to these metrics.

    Between two cutoffs j < k, `hits` users have ranks j to k - 1, so that each adds 1/log2(k + 1) to 1/log2(j + 2) to
    the NDCG, and 1/k to 1/(j + 1) to the MRR.
    """
    _whole(sums, ("users", *(f"{name}@{k}" for k in CUTOFFS for name in ("recall", "hr"))))
    before, found, gained, least, most = 0, 0.0, 0.0, 0.0, 0.0
    for k in CUTOFFS:
        hits, gain = sums[f"recall@{k}"] - found, sums[f"ndcg@{k}"] - gained
        if sums[f"hr@{k}"] != sums[f"recall@{k}"] or not 0 <= hits <= sums["users"] - found:
            raise ValueError(
                f"a sum of {sums[f'recall@{k}']:g} for the metric recall@{k} of {sums['users']:g} ranked users"
            )
        if not hits / log2(k + 1) - slack <= gain <= hits / log2(before + 2) + slack:
            raise ValueError(f"a sum of {sums[f'ndcg@{k}']:g} for the metric ndcg@{k} with {hits:g} hits past {before}")
        least, most = least + hits / k, most + hits / (before + 1)
        before, found, gained = k, found + hits, gained + gain
    most += (sums["users"] - found) / (before + 1)
    if not least - slack <= sums["mrr"] <= most + slack:
        raise ValueError(
            f"a sum of {sums['mrr']:g} for the metric mrr, which is {least:.3g} to {most:.3g} with such ranks"
        )


def _whole(sums: Mapping[str, float], names: tuple[str, ...]) -> None:
    for name in names:
        if sums[name] != int(sums[name]):
            raise ValueError(f"a sum of {sums[name]:g} for the metric {name}, which counts users")
