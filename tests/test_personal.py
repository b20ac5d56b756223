"""Clients by themselves: each trains a copy of its own, and is ranked with it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from fedrec.data.errors import InputError
from fedrec.data.randomness import DrawKey
from fedrec.data.shard import Shard
from fedrec.recsys.evaluation.ranking import metric_means, metric_sums, rank
from fedrec.recsys.model.scoring import model_scorer
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.training.local_training import FitConfig, LocalTrainer
from fedrec.recsys.training.personalisation import Clients, PersonalConfig, config_grid

FIT = FitConfig(negatives=24, precision="float32", local_rate=0.05)
CONFIG = PersonalConfig(steps=3, fit=FIT)


@pytest.fixture
def clients(model: TwoTowerModel, bent: dict[str, Tensor], shard: Shard, embeddings: Tensor) -> Clients:
    return Clients(model, bent, shard, embeddings)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_no_step_is_the_adapter_as_given(clients: Clients, split: str) -> None:
    score = model_scorer(
        clients.model, clients.adapter, clients.model.item_vectors(clients.adapter, clients.embeddings)
    )
    expected = rank(score, clients.shard, range(12), split).ranks
    assert clients.rank(replace(CONFIG, steps=0), split).ranks.tolist() == expected.tolist()


@pytest.mark.parametrize("parts", [("item", "user"), ("user.up", "user.down"), ("item",)])
def test_a_clients_rank_is_what_its_own_adapter_gives(clients: Clients, parts: tuple[str, ...]) -> None:
    """Each client anew, slowly: one step after the other, then the model with that adapter in its place."""
    found = clients.rank(replace(CONFIG, parts=parts), "test").ranks
    for user in range(12):
        adapter = {name: tensor.clone() for name, tensor in clients.adapter.items()}
        for step in range(3):
            crop = clients.shard.training_windows([user], 9, 0, step)
            trainer = LocalTrainer(clients.model, clients.embeddings, FIT)
            deltas = trainer.train_clients(adapter, crop, DrawKey(0, step)).deltas
            adapter |= {name: adapter[name] + delta[0] for name, delta in deltas.items() if name.startswith(parts)}
        score = model_scorer(clients.model, adapter, clients.model.item_vectors(adapter, clients.embeddings))
        assert rank(score, clients.shard, [user], "test").ranks[0] == found[user]


def test_a_client_gets_what_it_gets_alone(clients: Clients) -> None:
    config = replace(CONFIG, fit=replace(FIT, negatives=16))
    together = clients.rank(config, "test").ranks.tolist()
    parts = [replace(clients, shard=clients.shard.part(user, 12)) for user in range(12)]
    assert [int(alone.rank(config, "test").ranks[0]) for alone in parts] == together


def test_nothing_that_is_validated_has_seen_the_test_item(clients: Clients) -> None:
    shard = clients.shard
    items = np.array(shard.items)
    items[shard.ends - 1] = items[shard.starts]
    other = replace(clients, shard=Shard(shard.starts, shard.ends, items, shard.salts))
    assert other.rank(CONFIG, "validation").ranks.tolist() == clients.rank(CONFIG, "validation").ranks.tolist()
    assert other.rank(CONFIG, "test").ranks.tolist() != clients.rank(CONFIG, "test").ranks.tolist()


def test_only_the_named_parts_move(clients: Clients) -> None:
    steps, parts = [clients.shard.training_windows(range(12), 9, 0, 1)] * 2, ("user.up", "item")
    trainer = LocalTrainer(clients.model, clients.embeddings, FIT, parts)
    *_, last = trainer.local_sgd(clients.adapter, steps, DrawKey(0, 0))
    assert set(last.deltas) == {"user.up", "item.up", "item.down"}
    assert all(tensor.any() for tensor in last.deltas.values())


def test_training_alone_helps_where_the_client_is_its_own_best_teacher(clients: Clients) -> None:
    """Whoever has seen only cooking, or only space, finds the next film sooner after training on that."""
    start = replace(clients, adapter=clients.model.adapter())
    before, after = (start.rank(replace(CONFIG, steps=steps), "test").ranks for steps in (0, 20))
    assert (after < 12).all()
    assert after.mean() < before.mean()


def test_the_choice_is_the_best_of_all_trials(clients: Clients) -> None:
    configs = config_grid(FIT, steps=[0, 1, 4], rates=[0.02, 0.2], parts=[("item", "user"), ("user.up",)])
    choice, trials = clients.tune(configs)
    assert len(trials) == len(configs) == 1 + 2 * 2 * 2
    assert trials == json.loads(json.dumps(trials))
    assert (trials[0]["steps"], configs[0].steps) == (0, 0)
    scores = [trial["validation"]["ndcg@10"] for trial in trials]
    assert choice == configs[scores.index(max(scores))]
    for config, trial in zip(configs, trials, strict=True):
        walked = clients.rank(config, "validation").ranks
        assert trial == config.as_dict() | {"validation": metric_means(metric_sums(walked))}


def test_where_nothing_gains_the_choice_is_no_step(clients: Clients) -> None:
    """Steps of length almost 0 change no rank; the adapter as it was given comes first."""
    choice, _ = clients.tune(config_grid(FIT, steps=[1, 2], rates=[1e-12], parts=[("item", "user")]))
    assert choice.steps == 0


def test_clients_that_diverge_come_last(clients: Clients) -> None:
    ranks = clients.rank(replace(CONFIG, fit=replace(FIT, local_rate=1e38)), "test").ranks
    assert ranks.tolist() == [23] * 12


def test_a_part_that_is_none_is_refused(clients: Clients) -> None:
    with pytest.raises(InputError, match=r"`parts`: 'user\.top' begins no name"):
        clients.rank(replace(CONFIG, parts=("user.top",)), "test")


def test_ranking_leaves_the_given_adapter_as_it_was(clients: Clients) -> None:
    before = {name: tensor.clone() for name, tensor in clients.adapter.items()}
    clients.rank(CONFIG, "test")
    assert all(torch.equal(tensor, before[name]) for name, tensor in clients.adapter.items())
