"""The policy of a node: the limits of what it answers, in `node.toml` in its folder, or the defaults.

The process that starts a node reads it, and imports no torch for it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval, MinLen
from pydantic import ConfigDict, TypeAdapter, ValidationError

from fedrec.data.errors import InputError
from fedrec.data.manifest import NODE_POLICY
from fedrec.data.storage.reading import read_toml
from fedrec.recsys.model.config import ModelConfig

Question = Literal["train", "statistics", "validation", "test", "exposure"]
"""What an order asks: a change by training, the closed form's sums, the metrics of a held-out split, or how many users
are shown and have had an item."""

REMEDY = "mend the file, or write one with `fedrec node policy --write`"


@dataclass(frozen=True)
class NodePolicy:
    """What a node answers. A run or an order beyond it is refused before the node's data is touched; a server's own
    limits can only be stricter."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True, extra="forbid", strict=True)

    smallest_cohort: Annotated[int, Ge(1)] = 16
    """Fewest users in a sum that the server sees. Without secure aggregation this is the sum of this node alone, so
    that an order for fewer users is refused; under it, each node of the sum counts as one more user."""
    smallest_open_statistics: Annotated[int, Ge(1)] = 512
    """Fewest users in a sum of a closed form's statistics, or of counts of exposure, that leaves this node without
    secure aggregation: the items of 128 users can be told from their statistics (docs/attacks.md). A node with fewer
    users takes no part in a run with a closed form, and counts no exposure."""
    questions: tuple[Question, ...] = ("train", "statistics", "validation", "test", "exposure")
    """Questions that the node answers: train, statistics (the sums of a closed form), the metrics of the held-out items
    of validation and of test, and exposure (in how many lists each item is, and how many users have had items that are
    in many)."""
    orders_per_user_and_day: Annotated[int, Ge(0)] = 256
    """Orders that may name a user on one day, in UTC. 200 rounds with all users in each, their validations, and the
    counts of exposure, are 217."""
    rankings_per_user_and_day: Annotated[int, Ge(0)] = 128
    """Orders that may rank a user's held-out items on one day; they count as orders, too. A default run has at most
    36."""
    memory_days: Annotated[int, Ge(1)] = 7
    """Days for which the node remembers whom it has answered for together. The metrics and the statistics of two groups
    that differ in few users tell about these few, so that within this time they are answered only for the same groups,
    and for new users if these are a cohort of their own."""
    methods: tuple[str, ...] = ("fedrec", "closed-form", "hybrid")
    """Methods of the runs that the node takes part in. A federated baseline sends a table with a row for each item: the
    rows that change name the items."""
    statistic_features: tuple[Literal["text", "ids", "pairs"], ...] = ("text",)
    """Features over which the node sums the closed form's statistics. ids, and pairs: each number other than zero names
    a pair of items in the history of one of the users, unless the nodes add noise to it (`smallest_noise`)."""
    held_out: Annotated[tuple[Annotated[int, Interval(ge=0, le=2)], ...], MinLen(1)] = (2,)
    """Values of held_out that the node trains with. Two runs with different values tell, by their difference, about the
    last events: allow one value."""
    encoders: Annotated[tuple[str, ...], MinLen(1)] = (ModelConfig.encoder,)
    """Encoders of items and of user towers that the node loads, by their names in the run's settings: hub ids, folders.
    One of other weights can read a history in another way, and a refusal of an absent one would tell what is on the
    node's disk."""
    largest_clip: Annotated[float, Gt(0)] = 10.0
    """Largest L2 norm of a user's change."""
    most_local_steps: Annotated[int, Ge(1)] = 4
    """Most local steps of a user in a round."""
    fewest_negatives: Annotated[int, Ge(1)] = 256
    """Fewest negatives of a local step; a smaller catalogue needs no more than it has items. An item that changes the
    adapter may be a negative; yet a server that knows the run's seed can compute each sample."""
    largest_item_rank: Annotated[int, Ge(1)] = 256
    """Largest rank of the item tower's adapter."""
    largest_user_rank: Annotated[int, Ge(1)] = 64
    """Largest rank of the user tower's head."""
    largest_lora_rank: Annotated[int, Ge(1)] = 16
    """Largest rank of the user tower's LoRA pairs."""
    largest_epsilon: Annotated[float, Ge(0)] = 0.0
    """Largest epsilon that a run may claim for a user; a run without a claim is then refused. 0: no claim is needed.
    The noise of a claim is the server's promise, unless the nodes add it."""
    smallest_noise: Annotated[float, Ge(0)] = 0.0
    """Smallest noise that the nodes add together to a sum of changes or of statistics (noise_by = nodes), as standard
    deviation over the most that a user adds. A run in which the server adds it is then refused. 0: none is needed."""
    require_secure: bool = False
    """Whether the node takes part in runs with secure aggregation alone, so that a server sees no sum of this node's
    own."""
    smallest_secure_threshold: Annotated[float, Interval(gt=0.5, le=1)] = 0.66
    """Smallest secure_threshold of a run with secure aggregation: the share of a group's nodes without which the server
    cannot unmask the sum."""
    fewest_secure_clients: Annotated[int, Ge(1)] = 16
    """Smallest secure_clients of a run with secure aggregation: the fewest users in a sum that is unmasked."""
    largest_leverage: Annotated[float, Gt(0)] = 3.0
    """Largest leverage of an item over the item tower's neurons, in units of the largest one over as many random
    neurons. Honest runs stay well below it, and a neuron that one item alone activates is far above it; docs/attacks.md
    has both. inf: off."""
    largest_row_norm: Annotated[float, Gt(0)] = 10.0
    """Largest L2 norm of a row or column of a tower's matrix. Honest runs stay well below it. inf: off."""


@dataclass(frozen=True)
class SourcedPolicy:
    """A policy, and the file that states some of its fields; the other fields are defaults."""

    policy: NodePolicy
    file: Path | None = None
    stated: frozenset[str] = frozenset()

    def source_of(self, field: str) -> str:
        """Return where the value of a field is from: the file, or the defaults."""
        return str(self.file) if field in self.stated else "default"


FIELDS = tuple(field.name for field in fields(NodePolicy))

_ADAPTER = TypeAdapter(NodePolicy)


def load_policy(folder: Path, file: Path | None = None) -> SourcedPolicy:
    """Read the policy of a node: from `file`, or from `node.toml` in its folder if there is one, or the defaults.

    Raises `InputError`, which names file and field, if the file is malformed, or `file` is missing.
    """
    path = file or folder / NODE_POLICY
    try:
        table = read_toml(path, REMEDY, "" if file is None else "`policy` ")
    except FileNotFoundError as error:
        if file is None:
            return SourcedPolicy(NodePolicy())
        raise InputError(f"`policy` {file} does not exist; write one with `fedrec node policy --write`") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); {REMEDY}") from error
    return SourcedPolicy(_policy_of(table, path), path, frozenset(table))


def _policy_of(table: Mapping[str, Any], path: Path) -> NodePolicy:
    """Validate a table strictly: neither a truth nor a text stands for a number. Raises `InputError`."""
    if unknown := sorted(table.keys() - set(FIELDS)):
        raise InputError(f"{path}: {unknown[0]!r} is no field of a policy; the fields are {', '.join(FIELDS)}")
    try:
        return _ADAPTER.validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        first = error.errors()[0]
        name, value = first["loc"][0], table[str(first["loc"][0])]
        raise InputError(f"{path}: {name} = {value!r}: {first['msg'].lower()}; {REMEDY}") from error
