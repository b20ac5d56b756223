"""Whether a node takes part in a run: its settings against the node's policy, before any data is opened."""

import math
from collections.abc import Iterator, Mapping
from itertools import chain

from fedrec.federation.config import RunConfig, to_flat
from fedrec.federation.messages import OrderRefused
from fedrec.federation.policy.node_policy import NodePolicy

LIMITS: Mapping[str, str] = {
    "clip": "largest_clip",
    "local_steps": "most_local_steps",
    "item_rank": "largest_item_rank",
    "user_rank": "largest_user_rank",
    "lora_rank": "largest_lora_rank",
}
"""Settings of a run that a field of the policy bounds from above."""

FLOORS: Mapping[str, str] = {
    "secure_threshold": "smallest_secure_threshold",
    "secure_clients": "fewest_secure_clients",
}
"""Settings of a run with secure aggregation that a field of the policy bounds from below."""

CHOICES: Mapping[str, str] = {"method": "methods", "held_out": "held_out"}
"""Settings of a run that must be among the values of a field."""

ENCODERS = ("encoder", "user_encoder")
"""Settings of a run that name models, with commas between them: each must be among the `encoders` of a policy."""


def check_run(policy: NodePolicy, config: RunConfig, items: int) -> None:
    """Raise `OrderRefused`, which names the setting, its value and the limit, if a run is beyond a policy.

    `items` is the number of items in the catalogue.
    """
    rules = _exceeded(policy, config), _not_chosen(policy, config), _weakened(policy, config, items)
    for fault in chain(*rules, _unmasked(policy, config)):
        raise OrderRefused(f"this node's policy refuses the run: {fault}")


def claimed_epsilon(config: RunConfig) -> float:
    """Return the epsilon that a run claims for each user; infinity if it claims none."""
    return config.privacy.epsilon if config.privacy.enabled else math.inf


def _exceeded(policy: NodePolicy, config: RunConfig) -> Iterator[str]:
    settings = to_flat(config)
    for setting, field in LIMITS.items():
        if settings[setting] > (limit := getattr(policy, field)):
            yield f"{setting} = {settings[setting]}, and {field} = {limit}"


def _not_chosen(policy: NodePolicy, config: RunConfig) -> Iterator[str]:
    settings = to_flat(config)
    summed = {"features": "statistic_features"} if config.method_row.summed else {}
    final = {"final_held_out": "held_out"} if config.final_sums else {}
    choices = {**CHOICES, **summed, **final}
    for setting, field in choices.items():
        if settings[setting] not in (allowed := getattr(policy, field)):
            yield f"{setting} = {str(settings[setting])[:80]!r}, and {field} = {list(allowed)}"
    for setting in ENCODERS:
        for name in filter(None, map(str.strip, str(settings[setting]).split(","))):
            if name not in policy.encoders:
                yield f"{setting} = {name[:80]!r}, and encoders = {list(policy.encoders)}"


def _weakened(policy: NodePolicy, config: RunConfig, items: int) -> Iterator[str]:
    if config.fit.negatives < min(floor := policy.fewest_negatives, items):
        yield f"negatives = {config.fit.negatives}, and fewest_negatives = {floor}, with {items} items"
    claimed = claimed_epsilon(config)
    if policy.largest_epsilon and claimed > policy.largest_epsilon:
        claim = "no epsilon is claimed" if math.isinf(claimed) else f"epsilon = {claimed:g}"
        yield f"{claim}, and largest_epsilon = {policy.largest_epsilon:g}"
    if policy.smallest_noise and not config.privacy.by_nodes:
        yield f"its nodes add no noise, and smallest_noise = {policy.smallest_noise:g}"


def _unmasked(policy: NodePolicy, config: RunConfig) -> Iterator[str]:
    settings = to_flat(config)
    if not settings["secure"]:
        if policy.require_secure:
            yield "secure = False, and require_secure = True"
        return
    for setting, field in FLOORS.items():
        if settings[setting] < (floor := getattr(policy, field)):
            yield f"{setting} = {settings[setting]}, and {field} = {floor}"
