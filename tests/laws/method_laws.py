"""The laws of a federated method: alone, anywhere, private. A test class of one method inherits them and provides the
fixtures `method` and `config`."""

from collections.abc import Iterable
from dataclasses import replace
from functools import reduce
from itertools import chain
from operator import add
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from fedrec.data.catalogue import Catalogue
from fedrec.data.dataset import Dataset
from fedrec.data.shard import Shard
from fedrec.federation import round_log, rounds, wire
from fedrec.federation.census import take_census
from fedrec.federation.checkpoint import State
from fedrec.federation.clipping import clip_and_sum
from fedrec.federation.config import RunConfig
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.messages import Update
from fedrec.federation.round_log import RoundLog
from fedrec.federation.setup import TrainingSetup
from fedrec.recsys.exact_sum import exact_scatter
from fedrec.recsys.hardware import parallel_map
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.training.local_training import ClientUpdates
from fedrec.recsys.training.method import FederatedMethod
from tests.support.recorder import Recorder, bytes_of
from tests.support.toy_world import toy_stamp

CLIP = 0.05
"""A clip that is shorter than every client's update in these tests."""

UserStates = dict[int, Any]


def train_run(data: Path, config: RunConfig, folder: Path) -> State:
    """Train a whole run on in-process nodes."""
    return train_over(LocalGrid.over(TrainingSetup(Dataset.open(data), config)), folder)


def train_over(grid: LocalGrid, folder: Path) -> State:
    """Train a whole run on the nodes of a grid."""
    setup = grid.nodes[0].setup
    folder.mkdir()
    start = State.start(setup.method.adapter(), setup.config.server)
    return rounds.run(grid, take_census(grid, setup.config, toy_stamp()), start, setup.config, RoundLog(folder))


class MethodLaws:
    """What holds for whatever a federation can train, on the toy world."""

    table: ClassVar[str] = ""
    """The name of the shared parameter that has a row per item, if there is one."""

    @pytest.fixture
    def method(self) -> FederatedMethod:
        raise NotImplementedError("a class of laws is inherited, with a fixture `method`")

    @pytest.fixture
    def config(self) -> RunConfig:
        """A run of a few rounds."""
        raise NotImplementedError("a class of laws is inherited, with a fixture `config`")

    @pytest.fixture
    def users(self, shard: Shard) -> Shard:
        """The users that train in the laws without a run; a method may want others than the toy world's."""
        return shard

    @pytest.fixture
    def adapter(self, method: FederatedMethod) -> Adapter:
        """What they train from; a method may want one away from its start."""
        return method.adapter()

    # ---- alone

    @pytest.mark.parametrize("size", [2, 5, 64])
    def test_alone(self, method: FederatedMethod, adapter: Adapter, users: Shard, size: int) -> None:
        """A client in a cohort gets, to the bit, what the same client gets alone, its state included."""
        together: dict[int, tuple[Adapter, Tensor]] = {}
        states: UserStates = {}
        everyone = np.arange(len(users))
        for cohort in np.array_split(everyone, -(-len(users) // size)):
            together |= train_cohort(method, adapter, users, cohort, states)
        assert sorted(together) == everyone.tolist()
        for user in everyone.tolist():
            lone_states: UserStates = {}
            update, loss = train_cohort(method, adapter, users, [user], lone_states)[user]
            assert any(tensor.any() for tensor in update.values())
            assert torch.equal(loss, together[user][1])
            for name, tensor in update.items():
                assert torch.equal(tensor, together[user][0][name]), name
            scores = (method.scorer(adapter, users, "test", own)([user]) for own in (lone_states, states))
            assert torch.equal(*scores)

    def test_a_client_replaces_no_state_but_its_own(
        self, method: FederatedMethod, adapter: Adapter, users: Shard
    ) -> None:
        states: UserStates = {}
        train_cohort(method, adapter, users, [0, 1], states)
        before = dict(states)
        train_cohort(method, adapter, users, [2], states)
        assert set(before) <= {0, 1}
        assert set(states) - set(before) <= {2}
        assert all(states[user] is state for user, state in before.items())

    def test_training_changes_no_adapter(self, method: FederatedMethod, adapter: Adapter, users: Shard) -> None:
        before = {name: tensor.clone() for name, tensor in adapter.items()}
        train_cohort(method, adapter, users, range(4), {})
        assert all(torch.equal(tensor, before[name]) for name, tensor in adapter.items())

    def test_held_out_items_change_no_update(self, method: FederatedMethod, adapter: Adapter, users: Shard) -> None:
        """With other validation and test items, every client learns the same, to the bit."""
        items = np.array(users.items)
        items[users.ends - 1], items[users.ends - 2] = items[users.ends - 2], items[users.starts]
        assert not np.array_equal(items, users.items)
        other = Shard(users.starts, users.ends, items, users.salts)
        ours, theirs = (train_cohort(method, adapter, shard, range(len(users)), {}) for shard in (users, other))
        for user, (update, loss) in ours.items():
            assert torch.equal(loss, theirs[user][1])
            assert all(torch.equal(tensor, theirs[user][0][name]) for name, tensor in update.items())

    # ---- anywhere

    def test_what_travels_adds(self, method: FederatedMethod, adapter: Adapter, users: Shard) -> None:
        """The updates of two nodes add up, to the bit, to the update of one node that has the users of both."""
        first, second = np.arange(0, len(users), 3), np.setdiff1d(np.arange(len(users)), np.arange(0, len(users), 3))
        whole = sum_updates(method, adapter, users, np.arange(len(users)))
        sums = sum_updates(method, adapter, users, first) + sum_updates(method, adapter, users, second)
        assert whole.users == sums.users == len(users)
        assert whole.sums.keys() == sums.sums.keys()
        assert {name: whole.sums[name] for name in ("learners", "clipped", "diverged")} == {
            name: sums.sums[name] for name in ("learners", "clipped", "diverged")
        }
        for name, tensor in whole.deltas.items():
            assert torch.equal(tensor, sums.deltas[name]), name

    def test_anywhere(self, toy: Path, config: RunConfig, tmp_path: Path) -> None:
        """The same users on 1, 3 or 12 nodes give the same model and the same metrics, to the bit."""
        one, three, twelve = (train_run(toy, replace(config, nodes=n), tmp_path / str(n)) for n in (1, 3, 12))
        start = TrainingSetup(Dataset.open(toy), config).method.adapter()
        assert any(not torch.equal(tensor, start[name]) for name, tensor in one.adapter.items())
        for other in (three, twelve):
            for name, tensor in one.adapter.items():
                assert torch.equal(tensor, other.adapter[name]), name
                assert torch.equal(one.best[name], other.best[name]), name
            assert (other.round, other.best_round, other.best_score) == (one.round, one.best_round, one.best_score)
        validations = [[r["validation"] for r in round_log.read(tmp_path / n)] for n in ("1", "3", "12")]
        assert validations[0] == validations[1] == validations[2]
        assert any(validations[0])

    # ---- private

    def test_private_one_user_moves_the_sum_by_at_most_the_clip(
        self, method: FederatedMethod, adapter: Adapter, users: Shard
    ) -> None:
        """A user who leaves changes the sum by no more than the clip; a user alone, whose update is longer, by it."""
        everyone = np.arange(len(users))
        whole = sum_updates(method, adapter, users, everyone)
        for user in (0, len(users) - 1):
            others, alone = (sum_updates(method, adapter, users, u) for u in (np.delete(everyone, user), [user]))
            assert length({name: whole.deltas[name] - others.deltas[name] for name in whole.deltas}) <= CLIP * (
                1 + 1e-5
            )
            assert length(alone.deltas) == pytest.approx(CLIP, rel=1e-4)
            assert alone.sums["clipped"] == 1

    @pytest.mark.parametrize("nodes", [3, 12])
    def test_private_nothing_sent_holds_an_id(
        self, toy: Path, config: RunConfig, catalogue: Catalogue, shard: Shard, tmp_path: Path, nodes: int
    ) -> None:
        """No message of a run holds an id, a salt, a user's state, or (but for the table) a row per item."""
        config = replace(config, rounds=2, nodes=nodes)
        Recorder.crossed = []
        grid = Recorder.over(TrainingSetup(Dataset.open(toy), config))
        state = train_over(grid, tmp_path / "run")
        secrets = [*map(str.encode, catalogue.ids), b"person-"]
        secrets += [int(salt).to_bytes(8, order) for salt in shard.salts for order in ("little", "big")]
        secrets += state_secrets(grid, state)
        assert len(Recorder.crossed) >= 2 * 3 + 2 * 2
        assert sum(wire.payload_bytes(message.content) for message in Recorder.crossed) > 10_000
        for message in Recorder.crossed:
            payload = b"".join(bytes_of(message))
            assert not [secret for secret in secrets if secret in payload]
            arrays = dict(chain.from_iterable(r.items() for r in message.content.array_records.values()))
            assert arrays.keys() <= {*state.adapter, "tickets"}
            assert all(len(catalogue) not in array.shape for name, array in arrays.items() if name != self.table)


def state_secrets(grid: LocalGrid, state: State) -> list[bytes]:
    """Return the first bytes of each tensor that the nodes keep of their users."""
    kept = (tensor for node in grid.nodes for own in node.states.at(state.run, state.round).values() for tensor in own)
    return [tensor[:4].numpy().tobytes() for tensor in kept if isinstance(tensor, Tensor)]


def train_cohort(
    method: FederatedMethod, adapter: Adapter, shard: Shard, users: Iterable[int], states: UserStates
) -> dict[int, tuple[Adapter, Tensor]]:
    """Train some users side by side. Return each user's dense update and its loss."""
    user_of = {int(salt): user for user, salt in enumerate(shard.salts)}
    blocks = list(method.blocks(shard, np.fromiter(users, dtype=np.int64), 1))
    trained = parallel_map(lambda block: method.train_clients(adapter, block, states), blocks)
    return {
        user_of[int(salt)]: (dense_update(updates, place), updates.losses[place])
        for block, updates in zip(blocks, trained, strict=True)
        for place, salt in enumerate(block.salts)
    }


def dense_update(updates: ClientUpdates, client: int) -> Adapter:
    """Return one client's update of whole tensors, also if it changes some rows of a table alone."""
    rows, one = updates.rows, slice(client, client + 1)
    if rows is None:
        return {name: tensor[client] for name, tensor in updates.deltas.items()}
    return {name: exact_scatter(t[one], rows[one], updates.items, torch.ones(1)) for name, t in updates.deltas.items()}


def sum_updates(method: FederatedMethod, adapter: Adapter, shard: Shard, users: Iterable[int]) -> Update:
    """Train some users from new states, as a node does. Return their clipped and summed updates."""
    blocks = method.blocks(shard, np.fromiter(users, dtype=np.int64), 1)
    trained = parallel_map(lambda block: clip_and_sum(method.train_clients(adapter, block, {}), 1, CLIP), blocks)
    return reduce(add, trained)


def length(deltas: Adapter) -> float:
    """Return the L2 norm of an update."""
    return float(torch.linalg.vector_norm(torch.cat([tensor.flatten() for tensor in deltas.values()])))
