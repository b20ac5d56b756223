"""The laws of a closed form's sums: alone, anywhere, private. A test class of one closed form inherits them and
provides the fixture `settings`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedrec.data.catalogue import Catalogue
from fedrec.data.dataset import Dataset
from fedrec.data.shard import Shard
from fedrec.federation.checkpoint import STATE, State
from fedrec.federation.config import RunConfig
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.messages import Order, Update
from fedrec.federation.node import Node
from fedrec.federation.run_statistics import load_nodes, load_total
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.training_run import METRICS, open_run, train
from fedrec.federation.wire import STATISTICS
from tests.support.recorder import Recorder, bytes_of
from tests.support.toy_world import small_config


class StatisticsLaws:
    """What holds for the sums of any closed form, on the toy world."""

    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        raise NotImplementedError("a class of laws is inherited, with a fixture `settings`")

    @pytest.fixture
    def config(self, settings: dict[str, Any]) -> RunConfig:
        return small_config(**settings)

    @pytest.fixture
    def node(self, toy: Path, config: RunConfig) -> Node:
        """A node that hosts all users."""
        return Node.open(toy, config)

    # ---- alone

    def test_alone(self, node: Node) -> None:
        """The sums of a group are, to the bit, those of its users one by one, in any order."""
        everyone = np.arange(len(node.shard))
        alone = [ask(node, [user]) for user in everyone]
        assert all(update.deltas[name].any() for update in alone for name in update.deltas)
        for users in (everyone, everyone[::-1], everyone[3:8]):
            together = ask(node, users)
            assert together.sums == {"learners": len(users)}
            for name, tensor in together.deltas.items():
                assert torch.equal(tensor, torch.stack([alone[user].deltas[name] for user in users]).sum(0)), name

    def test_held_out_items_change_no_sum(self, node: Node) -> None:
        shard = node.shard
        items = np.array(shard.items)
        items[shard.ends - 1], items[shard.ends - 2] = items[shard.ends - 2], items[shard.starts]
        assert not np.array_equal(items, shard.items)
        other = Node(Shard(shard.starts, shard.ends, items, shard.salts), node.setup)
        ours, theirs = (ask(one, range(len(shard))).deltas for one in (node, other))
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())

    # ---- anywhere

    def test_anywhere(self, toy: Path, settings: dict[str, Any], tmp_path: Path) -> None:
        """The same users on 1, 3 or 12 nodes give the same sums, the same model and the same metrics, to the bit."""
        runs = [summed_run(toy, tmp_path / str(nodes), **settings, nodes=nodes) for nodes in (1, 3, 12)]
        (one, best), *others = [(load_total(out), best_of(out)) for out in runs]
        for out, (total, state) in zip(runs[1:], others, strict=True):
            kept = load_nodes(out)
            assert (total.users, total.learners) == (one.users, one.learners) == (12, 12)
            for name, tensor in one.statistics.items():
                assert torch.equal(tensor, total.statistics[name]), name
                assert torch.equal(tensor, torch.stack([sums.statistics[name] for sums in kept.values()]).sum(0)), name
            assert (state.chosen, state.best_round, state.best_score) == (best.chosen, best.best_round, best.best_score)
            for name, tensor in best.best.items():
                assert torch.equal(tensor, state.best[name]), name
            assert (out / METRICS).read_bytes() == (runs[0] / METRICS).read_bytes()

    # ---- private

    def test_private_nothing_sent_holds_an_id(
        self, toy: Path, settings: dict[str, Any], catalogue: Catalogue, shard: Shard, tmp_path: Path
    ) -> None:
        """No message of a run holds an id or a salt, and an answer holds sums and counts alone."""
        Recorder.crossed = []
        run = open_run(tmp_path / "run", Dataset.open(toy), small_config(**settings, nodes=3), resume=False)
        train(Recorder.over(run.setup), run)
        secrets = [*map(str.encode, catalogue.ids), b"person-"]
        secrets += [int(salt).to_bytes(8, order) for salt in shard.salts for order in ("little", "big")]
        for message in Recorder.crossed:
            payload = b"".join(bytes_of(message))
            assert not [secret for secret in secrets if secret in payload]
        asked = [m.content for m in Recorder.crossed if m.metadata.message_type == STATISTICS]
        answers = [content for content in asked if "deltas" in content]
        assert len(answers) == 3
        for content in answers:
            assert set(content.array_records["deltas"]) == {"gram", "cross"}
            assert dict(content.metric_records["sums"]) == {"learners": 4.0}


def ask(node: Node, users: Any) -> Update:
    """Ask a node for the sums of some users, as the server does."""
    return node.sum_statistics(Order(node.config.training_rounds + 1, np.asarray(users)), {})


def summed_run(data: Path, out: Path, **settings: Any) -> Path:
    """Train a whole run on in-process nodes, and return its folder."""
    setup = TrainingSetup(Dataset.open(data), small_config(**settings))
    run = open_run(out, setup.dataset, setup.config, resume=False)
    train(LocalGrid.over(run.setup), run)
    return out


def best_of(out: Path) -> State:
    """Load the state at the end of a run."""
    state = State.load(out)
    assert state, f"{out} has no {STATE}"
    return state
