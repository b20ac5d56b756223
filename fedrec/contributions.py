"""`fedrec contribute`: each node's worth to the closed form of a run, from the sums that the run keeps."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import polars as pl

from fedrec.data.errors import InputError
from fedrec.data.progress import Progress
from fedrec.federation.revision import OpenRun
from fedrec.federation.roster import Roster
from fedrec.federation.round_log import SCORE
from fedrec.federation.run_statistics import Sums
from fedrec.federation.sampling import sample_clients
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.worth import Coalition, coalitions, leave_one_out, shapley_values
from fedrec.recsys.evaluation.ranking import metric_means, metric_sums, rank_users
from fedrec.recsys.training.hybrid import split_adapter

MAX_SHAPLEY = 10
"""The largest number of nodes for Shapley values: 2ⁿ solutions are ranked."""


def measure_contributions(folder: Path, setup: TrainingSetup, shapley: bool, progress: Progress) -> pl.DataFrame:
    """Measure each node's worth, a row for each node: `node`, `users`, `learners`, `all`, `without`, `worth` and, if
    asked for, `shapley`.

    The measure is NDCG@10 of the validation items, by the solution of some nodes' sums with the run's hyperparameters.
    If the validation items are in the sums, it is that of the test items. Raises `InputError` if the sums of nodes were
    not kept, or if the run was trained on every event.
    """
    run = OpenRun.load(folder, setup)
    nodes = sorted(run.sums.by_node)
    _check_nodes(folder, setup, nodes, shapley)
    asked = coalitions(nodes, shapley)
    users, values = _ranked_users(setup), dict[Coalition, float]()
    for done, some in enumerate(asked):
        progress(done, len(asked))
        values[some] = _score(run, some, users)
    progress(len(asked), len(asked))
    return _as_frame(run.sums.by_node, values, shapley)


def _check_nodes(folder: Path, setup: TrainingSetup, nodes: Sequence[int], shapley: bool) -> None:
    if not setup.config.measured:
        raise InputError(
            f"{folder} was trained on every event ({setup.config.what_was_seen}), so that none can measure; train with "
            "held_out = 2"
        )
    if setup.config.secure_aggregation.secure:
        raise InputError(
            f"{folder} was trained with secure = True: no node's own sums are known, and so is no node's worth; train "
            "without it, with nodes that agree to that"
        )
    if len(nodes) < 2:
        raise InputError(
            f"{folder} keeps the sums of {len(nodes)} nodes apart: worth is shared among 2 to 64; train with more nodes"
        )
    if shapley and len(nodes) > MAX_SHAPLEY:
        raise InputError(
            f"`shapley`: {len(nodes)} nodes make {2 ** len(nodes):,} coalitions, and at most {MAX_SHAPLEY} nodes are "
            "taken; leave it out, for what is lost without each node"
        )


def _ranked_users(setup: TrainingSetup) -> list[int]:
    """Draw the users to rank, as the run's validations do."""
    roster = Roster.empty({}).with_node(1, setup.dataset.shard.tickets())
    return roster.users[sample_clients(roster, setup.config.validation_users, setup.config.seed, 0)].tolist()


def _score(run: OpenRun, nodes: Coalition, users: Sequence[int]) -> float:
    """Solve the sums of some nodes, and rank the items that are not in them."""
    assert run.state.chosen
    method, closed_form, shard = run.setup.method, run.setup.closed_form, run.setup.dataset.shard
    zeros = {name: tensor * 0 for name, tensor in run.sums.total.statistics.items()}
    total = reduce(add, (run.sums.by_node[node] for node in nodes), Sums(zeros, 0, 0))
    adapter = split_adapter(run.state.best)[0] | closed_form.solver(total.statistics).solve(run.state.chosen)
    split = run.setup.config.measured[-1]
    score = method.scorer(adapter, shard, split, {})
    return metric_means(metric_sums(rank_users(score, shard, users, split).ranks))[SCORE]


def _as_frame(by_node: Mapping[int, Sums], values: Mapping[Coalition, float], shapley: bool) -> pl.DataFrame:
    nodes = sorted(by_node)
    worth, everyone = leave_one_out(nodes, values.__getitem__), frozenset(nodes)
    columns = {
        "node": pl.Series(nodes, dtype=pl.UInt64),
        "users": [by_node[node].users for node in nodes],
        "learners": [by_node[node].learners for node in nodes],
        "all": np.full(len(nodes), values[everyone]),
        "without": [values[everyone - {node}] for node in nodes],
        "worth": list(worth.values()),
    }
    if shapley:
        columns["shapley"] = list(shapley_values(nodes, values.__getitem__).values())
    return pl.DataFrame(columns)
