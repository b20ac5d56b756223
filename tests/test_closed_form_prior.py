"""Weights that are pulled towards those of the items' texts: by hand, against dense solutions, in runs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.federation.checkpoint import State
from fedrec.federation.config import from_flat
from fedrec.federation.setup import TrainingSetup
from fedrec.recsys.baselines.neighbours import ease_weights
from fedrec.recsys.baselines.whitening import whiten
from fedrec.recsys.closed_form import text_prior
from fedrec.recsys.closed_form.config import ClosedFormConfig
from fedrec.recsys.closed_form.contexts import KernelStack
from fedrec.recsys.closed_form.packing import pack
from fedrec.recsys.closed_form.search import Hyperparameters, SearchSpace
from fedrec.recsys.closed_form.solutions import WEIGHTS, Solver
from fedrec.recsys.closed_form.solve import RidgePath
from fedrec.recsys.closed_form.statistics import CROSS, GRAM, ItemSums, Statistics, sum_statistics
from fedrec.recsys.closed_form.text_prior import factor_texts, feature_weights, text_weights
from fedrec.recsys.recommender import Recommender
from fedrec.recsys.training.closed_form import TEXT_RIDGE, ClosedFormMethod
from fedrec.training import train
from tests.support.toy_world import SMALL, shard_of, small_config

IDS: dict[str, Any] = {"method": "closed-form", "features": "ids", "ridges": "0.1,1,10", "refinements": 0}
PULLED: dict[str, Any] = IDS | {"priors": "0,1,3"}


def some_sums(items: int = 9) -> Statistics:
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, items, length) for length in (3, 8, 20, 2)]
    return sum_statistics(ItemSums(items, KernelStack((0.8,), reverse=0.5)), histories)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# ---- the weights of texts


def test_weights_of_three_texts_by_hand() -> None:
    """One direction, in which the texts lie at -1, 0 and 1, less their mean: z = (-1, 0, 1), so that A = 1/3 with a
    ridge of 1, and C_02 = -1/3 / (1 - 1/3)."""
    found = text_weights(torch.tensor([[4.0], [5.0], [6.0]]), 1.0)
    assert found.flatten().tolist() == pytest.approx([0, 0, -0.5, 0, 0, 0, -0.5, 0, 0], abs=1e-6)


@pytest.mark.parametrize(("items", "width"), [(12, 4), (4, 12)])
def test_weights_of_texts_are_those_of_ease(items: int, width: int) -> None:
    """EASE, with the directions of the whitened texts in place of users."""
    embeddings = 5 + drawn(items, width).float() * torch.arange(1, width + 1)
    whitened = whiten(embeddings, 1.0)
    golden = ease_weights((whitened @ whitened.T).numpy(), 0.7)
    assert text_weights(embeddings, 0.7).numpy() == pytest.approx(golden, abs=1e-5)


def test_a_text_that_training_may_not_use_is_regressed_on_the_others_and_changes_none() -> None:
    embeddings = 5 + drawn(12, 3).float()
    rows = np.arange(11)
    found = text_weights(embeddings, 0.7, rows)
    assert torch.allclose(found[:11, :11], text_weights(embeddings[:11], 0.7), atol=1e-6)
    twin = torch.cat([embeddings[:11], embeddings[3:4]])  # the last has the text of item 3
    of_twin = text_weights(twin, 0.7, rows)
    whitened = whiten(embeddings[:11], 1.0)
    golden = torch.linalg.solve(whitened @ whitened.T + 0.7 * torch.eye(11), whitened @ whitened[3])
    assert of_twin[:11, 11].numpy() == pytest.approx(golden.numpy(), abs=1e-5)
    assert torch.allclose(of_twin[11, :3], of_twin[3, :3])


# ---- the solution


def test_a_pull_by_hand() -> None:
    """One item, G = 2, R = 3: with λ = 1, κ = 2 and C = 5, W = (3 + 2 · 5) / (2 + 1 + 2)."""
    one = {name: torch.tensor([[value]], dtype=torch.float64) for name, value in ((GRAM, 2.0), (CROSS, 3.0))}
    assert RidgePath.of(one, torch.tensor([[5.0]]).double()).weights(1.0, 2.0).item() == pytest.approx(13 / 5)


@pytest.mark.parametrize(("ridge", "pull"), [(0.1, 3.0), (10.0, 0.5), (1.0, 1000.0)])
def test_the_solution_is_that_of_dense_equations_and_a_minimum(ridge: float, pull: float) -> None:
    sums, prior = some_sums(), drawn(9, 9)
    found = RidgePath.of(sums, prior).weights(ridge, pull)
    golden = torch.linalg.solve(sums[GRAM] + (ridge + pull) * torch.eye(9), sums[CROSS] + pull * prior)
    assert torch.allclose(found, golden, atol=1e-10)
    slope = sums[GRAM] @ found - sums[CROSS] + ridge * found + pull * (found - prior)
    assert slope.abs().max() < 1e-9


def test_an_endless_pull_gives_the_prior_and_none_the_bytes_without_one() -> None:
    sums, prior = some_sums(), drawn(9, 9)
    path = RidgePath.of(sums, prior)
    assert torch.allclose(path.weights(1.0, 1e12), prior, atol=1e-9)
    assert torch.equal(path.weights(1.0), RidgePath.of(sums).weights(1.0))


def test_blocks_of_features_share_the_prior() -> None:
    """Two blocks of contexts: each is pulled towards half of C, so that an event that is in both scores by C."""
    prior = drawn(9, 9)
    half = drawn(40, 18)
    sums = {GRAM: half.T @ half, CROSS: half.T @ drawn(40, 9)}
    both = torch.cat([prior / 2, prior / 2])
    golden = torch.linalg.solve(sums[GRAM] + 3 * torch.eye(18), sums[CROSS] + 2 * both)
    assert torch.allclose(RidgePath.of(sums, prior).weights(1.0, 2.0), golden, atol=1e-10)


# ---- a method


def method_of(embeddings: Tensor, rows: np.ndarray, **settings: Any) -> ClosedFormMethod:
    return ClosedFormMethod(embeddings, rows, small_config(**PULLED | settings).closed_form, seed=0, held_out=2)


def solved(method: ClosedFormMethod, shard: Shard) -> Tensor:
    sums = method.sum_users(shard, np.arange(len(shard))).statistics
    return method.solver(sums).solve(small_config(**PULLED).search_space.middle)[WEIGHTS]


def test_an_item_without_events_is_scored_by_its_text(embeddings: Tensor) -> None:
    """Item 23 is in no history: without a pull it scores 0 after any, and with one by its text. As an event, it says
    κ / (λ + κ) of what its text says."""
    method, plain = method_of(embeddings, np.arange(24)), method_of(embeddings, np.arange(24), priors="0")
    shard = shard_of([[0, 1, 2, 3, 4, 5], [5, 6, 7, 8, 9, 10]])
    sums = method.sum_users(shard, np.arange(2)).statistics
    ours, others = method.solver(sums), plain.solver(sums)
    assert isinstance(ours, Solver)
    assert isinstance(others, Solver)
    found = ours.path.weights(1.0, 3.0)
    assert others.path.weights(1.0)[:, 23].abs().max() == 0
    assert method.text_weights is not None
    assert torch.allclose(found[23], 3 / 4 * method.text_weights[23], atol=1e-9)
    assert torch.allclose(found[15], 3 / 4 * method.text_weights[15], atol=1e-9)
    assert found[:, 23].abs().max() > 0.01


def test_no_pull_gives_the_bytes_of_a_method_without_any(embeddings: Tensor) -> None:
    method, plain = method_of(embeddings, np.arange(24)), method_of(embeddings, np.arange(24), priors="0")
    sums = method.sum_users(shard_of([[0, 1, 2, 3, 4, 5], [5, 6, 7, 8, 9, 10]]), np.arange(2)).statistics
    chosen = Hyperparameters(ridge=1.0, decode=1.0, share=1.0)
    ours, theirs = (one.solver(sums).solve(chosen) for one in (method, plain))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    pulled = method.solver(sums).solve(replace(chosen, prior=3.0))
    assert not torch.equal(pulled[WEIGHTS], ours[WEIGHTS])


def test_a_cut_keeps_what_the_texts_say_of_an_item_without_events() -> None:
    """At a rank of 5, the rows of such items are nearer to the whole than by a cut for the events alone."""
    method = method_of(drawn(24, 6).float(), np.arange(24), served_rank=5)
    sums = method.sum_users(shard_of([[0, 1, 2, 3, 4, 5], [5, 6, 7, 8, 9, 10]]), np.arange(2)).statistics
    chosen = Hyperparameters(ridge=1.0, decode=1.0, share=1.0, prior=3.0)
    solution = method.solver(sums).solve(chosen)
    ours, theirs = (method.cut(solution, sums, one).weights for one in (chosen, replace(chosen, prior=0.0)))
    whole = centred(solution[WEIGHTS].double())[11:]
    errors = [(centred(weights)[11:] - whole).norm() for weights in (ours, theirs)]
    assert errors[0] < 0.7 * errors[1]


def centred(weights: Tensor) -> Tensor:
    """Scores less their mean over the items, which does not change an order."""
    return weights - weights.mean(1, keepdim=True)


def test_items_that_training_may_not_use_have_weights_and_change_no_others(embeddings: Tensor) -> None:
    other = embeddings.clone()
    other[20:] = other[:4]
    shard = shard_of([[0, 1, 2, 3, 4, 20, 21], [5, 6, 7, 8, 22, 23]])
    ours, theirs = (solved(method_of(matrix, np.arange(20)), shard) for matrix in (embeddings, other))
    assert torch.equal(ours[:20, :9], theirs[:20, :9])  # of the items with events
    assert not torch.equal(ours[:20, 20:], theirs[:20, 20:])
    assert ours[:20, 20:].abs().max() > 0.01


def test_a_pull_below_zero_is_refused() -> None:
    with pytest.raises(InputError, match="setting priors = '-1'"):
        from_flat(IDS | {"priors": "-1"})


def test_pairs_have_a_pull_of_their_own() -> None:
    config = ClosedFormConfig(features="pairs", priors=(10.0, 30.0), pair_priors=(1.0, 2.0, 3.0))
    assert SearchSpace.of(config, blended=False).middle.prior == 0
    assert SearchSpace.of(config, blended=False).middle.ridge == 2
    with pytest.raises(InputError, match=r"setting priors: .*'pairs' have a pull of their own; set pair_priors"):
        from_flat({"method": "closed-form", "features": "pairs", "priors": "0,20"})


# ---- over features of texts


TEXTS: dict[str, Any] = {"features": "text", "feature_width": 64, "served_rank": 64}


def test_weights_between_features_are_a_regression_of_those_between_items() -> None:
    """Against dense matrices; the items that training may not use are in neither."""
    embeddings, features, rows = 5 + drawn(12, 3).float(), drawn(12, 5).float(), np.arange(10)
    known = features[:10].double()
    found = feature_weights(factor_texts(embeddings, 0.7, rows), features, known.T @ known, rows, 0.3)
    between = text_weights(embeddings[:10], 0.7)
    golden = torch.linalg.solve(known.T @ known + 0.3 * torch.eye(5), known.T @ between @ known)
    assert torch.allclose(found, golden, atol=1e-5)


def test_blocks_of_items_give_the_weights_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, features, rows = 5 + drawn(12, 3).float(), drawn(12, 5).float(), np.arange(12)
    factors, gram = factor_texts(embeddings, 0.7, rows), features.T.double() @ features.double()
    whole = feature_weights(factors, features, gram, rows, 0.3)
    monkeypatch.setattr(text_prior, "BLOCK", 5)
    assert torch.allclose(feature_weights(factors, features, gram, rows, 0.3), whole, atol=1e-12)


@pytest.mark.parametrize("decays", ["0.8", "0.5,0.9"])
def test_without_any_event_features_score_as_the_texts_do(decays: str) -> None:
    """More features than items, so that they can tell all apart; an event is in the contexts of all decays."""
    embeddings = drawn(24, 6).float()
    method = method_of(embeddings, np.arange(24), **TEXTS | {"decays": decays, "feature_width": 512})
    assert method.features is not None
    blocks = len(method.config.decays)
    zeros = torch.zeros(512 * blocks, 512 * blocks, dtype=torch.float64)
    nothing = pack({GRAM: zeros, CROSS: zeros[:, :512]})
    chosen = Hyperparameters(ridge=1e-6, decode=1e-6, share=1.0, prior=1e3)
    weights = method.solver(nothing).solve(chosen)[WEIGHTS].split(512)
    found = method.features @ sum(weights) @ method.features.T
    golden = text_weights(embeddings, TEXT_RIDGE).float()
    assert torch.nn.functional.cosine_similarity(centred(found), centred(golden)).min() > 0.9


def test_a_pull_over_features_finds_the_item_that_the_texts_name() -> None:
    """Item 1 has the text of item 0 with a word more, and neither has an event: after 0 comes 1, with a pull alone."""
    embeddings = drawn(24, 8).float()
    embeddings[1] = embeddings[0] + 0.2 * embeddings[1]
    method = method_of(embeddings, np.arange(24), **TEXTS)
    sums = method.sum_users(shard_of([[4, 5, 6, 7, 8, 9], [9, 10, 11, 12, 13, 14]]), np.arange(2)).statistics
    ranks = []
    for pull in (0.0, 3.0):
        solution = method.solver(sums).solve(Hyperparameters(ridge=1.0, decode=1.0, share=1.0, prior=pull))
        scores = method.user_vectors(solution)([np.array([0])]) @ method.candidates.T
        scores[0, 0] = -torch.inf
        ranks.append(int((scores > scores[0, 1]).sum()))
    assert ranks[0] > 0
    assert ranks[1] == 0


# ---- a run


def test_a_run_searches_the_pull_and_serves_what_it_chose(toy: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(toy)
    run = train(dataset, out=tmp_path / "run", progress=False, **SMALL | PULLED)
    state = State.load(tmp_path / "run")
    assert state
    assert state.chosen
    candidates = [candidate for candidate in run.rounds["candidate"].to_list() if candidate]
    assert [(one["ridge"], one["prior"]) for one in candidates[:3]] == [(1.0, 1.0), (0.1, 1.0), (10.0, 1.0)]
    assert [one["prior"] for one in candidates[3:]] == [0.0, 3.0]
    assert run.card["sums"]["chosen"] == state.chosen.as_record()
    setup = TrainingSetup(dataset, run.config)
    served = Recommender.load(tmp_path / "run").scorer()
    histories = [dataset.shard.history(user, "test") for user in range(12)]
    ours = setup.method.scorer(state.best, dataset.shard, "test", {})(range(12))
    assert torch.equal(served(histories).argmax(-1), ours.argmax(-1))


ALONE: dict[str, Any] = SMALL | PULLED | {"ridges": "1", "priors": "3"}


def test_users_are_forgotten_from_a_run_with_a_pull(toy: Path, tmp_path: Path) -> None:
    """The sums do not know of the pull: what is left is solved with it again."""
    dataset = Dataset.open(toy)
    run = train(dataset, out=tmp_path / "run", progress=False, **ALONE)
    left = run.forget(["person-11"], dataset)
    state = State.load(left.folder)
    assert state
    closed_form = TrainingSetup(dataset, run.config).closed_form
    others = closed_form.sum_users(dataset.shard, np.arange(11)).statistics
    assert state.chosen
    assert torch.equal(closed_form.solver(others).solve(state.chosen)[WEIGHTS], state.best[WEIGHTS])
    assert json.loads((left.folder / "card.json").read_text("utf-8"))["revisions"][0]["kind"] == "forget"
