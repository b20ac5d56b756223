"""The laws of scorers, for each scorer of the project."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fedrec.data.shard import Shard
from fedrec.recsys.baselines.fusion import FusionConfig, sum_scorer
from fedrec.recsys.baselines.neighbours import EASEConfig, KNNConfig, ease, item_knn
from fedrec.recsys.baselines.next_item import NextItemConfig, next_item_ridge
from fedrec.recsys.baselines.sasrec import SASRecConfig, fit_sasrec, sasrec_scorer
from fedrec.recsys.baselines.simple import popularity, random_scores, text_neighbours
from fedrec.recsys.baselines.text_prior import TextPriorConfig, ease_with_text_prior
from fedrec.recsys.baselines.tuning import TrainingData
from fedrec.recsys.baselines.whitening import WhitenedTextConfig, whitened_text_neighbours
from fedrec.recsys.encoders.text import Encoder
from fedrec.recsys.model.inference import InferenceModel
from fedrec.recsys.model.scoring import Scorer, model_scorer, vector_scorer
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.recommender import Recommender
from tests.laws.scorer_laws import ITEMS, SavedScorerLaws, ScorerLaws
from tests.support.closed_form import hybrid_of


class TestRandom(ScorerLaws):
    @pytest.fixture
    def scorer(self) -> Scorer:
        return random_scores(ITEMS, seed=0)


class TestPopularity(ScorerLaws):
    @pytest.fixture
    def scorer(self, shard: Shard) -> Scorer:
        return popularity(shard, ITEMS, "test")


class TestTextNeighbours(ScorerLaws):
    tolerance = 1e-6
    of_no_events = 0.0

    @pytest.fixture
    def scorer(self, embeddings: Tensor) -> Scorer:
        return text_neighbours(embeddings)


class TestWhitenedTextNeighbours(ScorerLaws):
    tolerance = 1e-6
    of_no_events = 0.0

    @pytest.fixture
    def scorer(self, embeddings: Tensor) -> Scorer:
        return whitened_text_neighbours(embeddings, WhitenedTextConfig(power=0.5))


@pytest.fixture
def data(shard: Shard, embeddings: Tensor) -> TrainingData:
    return TrainingData(shard, embeddings)


class TestItemKNN(ScorerLaws):
    of_no_events = 0.0

    @pytest.fixture
    def scorer(self, data: TrainingData) -> Scorer:
        return item_knn(data, "test", KNNConfig(neighbours=5))


class TestItemKNNWithRecency(ScorerLaws):
    of_no_events = 0.0

    @pytest.fixture
    def scorer(self, data: TrainingData) -> Scorer:
        return item_knn(data, "test", KNNConfig(neighbours=5, decay=0.7))


class TestEASE(ScorerLaws):
    of_no_events = 0.0

    @pytest.fixture
    def scorer(self, data: TrainingData) -> Scorer:
        return ease(data, "test", EASEConfig(ridge=1.0))


class TestEASEWithRecency(ScorerLaws):
    of_no_events = 0.0

    @pytest.fixture
    def scorer(self, data: TrainingData) -> Scorer:
        return ease(data, "test", EASEConfig(ridge=1.0, decay=0.7))


class TestEASEWithTextPrior(ScorerLaws):
    of_no_events = 0.0

    @pytest.fixture
    def scorer(self, data: TrainingData) -> Scorer:
        return ease_with_text_prior(data, "test", TextPriorConfig(ridge=1.0, prior=2.0))


class TestNextItemRidge(ScorerLaws):
    of_no_events = 0.0

    @pytest.fixture
    def scorer(self, data: TrainingData) -> Scorer:
        return next_item_ridge(data, "test", NextItemConfig(ridge=1.0))


class TestSumOfScorers(ScorerLaws):
    tolerance = 1e-6
    of_no_events = 0.0

    @pytest.fixture
    def scorer(self, data: TrainingData) -> Scorer:
        parts = (
            next_item_ridge(data, "test", NextItemConfig()),
            ease(data, "test", EASEConfig(decay=0.8)),
            ease_with_text_prior(data, "test", TextPriorConfig()),
        )
        return sum_scorer(parts, FusionConfig().weights)


class TestSASRec(ScorerLaws):
    tolerance = 1e-6
    of_no_events = 0.0

    @pytest.fixture
    def scorer(self, shard: Shard) -> Scorer:
        config = SASRecConfig(width=8, layers=1, length=6, batch=8, epochs=2)
        return sasrec_scorer(fit_sasrec(shard, ITEMS, config, np.random.default_rng(0), lambda epoch: None))


class TestTwoTowersInTraining(ScorerLaws):
    tolerance = 1e-6
    of_no_events = 0.0

    @pytest.fixture
    def scorer(self, model: TwoTowerModel, bent: dict[str, Tensor], embeddings: Tensor) -> Scorer:
        return model_scorer(model, bent, model.item_vectors(bent, embeddings))


class TestInferenceModel(ScorerLaws):
    tolerance = 1e-6
    of_no_events = 0.0

    @pytest.fixture
    def scorer(self, model: TwoTowerModel, encoder: Encoder, bent: dict[str, Tensor], embeddings: Tensor) -> Scorer:
        towers = InferenceModel(model.config, encoder, bent, seed=0)
        return vector_scorer(towers.user_vectors, towers.length, towers.item_vectors(embeddings))

    def test_it_scores_as_the_model_in_training(
        self,
        scorer: Scorer,
        model: TwoTowerModel,
        bent: dict[str, Tensor],
        embeddings: Tensor,
        histories: list[np.ndarray],
    ) -> None:
        expected = model_scorer(model, bent, model.item_vectors(bent, embeddings))(histories)
        torch.testing.assert_close(scorer(histories), expected, atol=1e-5, rtol=0)


class TestRecommender(SavedScorerLaws):
    tolerance = 1e-6
    of_no_events = 0.0

    @pytest.fixture
    def scorer(self, run: Path) -> Scorer:
        return Recommender.load(run).scorer()

    @pytest.fixture
    def reloaded(self, run: Path, tmp_path: Path) -> Scorer:
        Recommender.load(run).save(tmp_path)
        return Recommender.load(tmp_path).scorer()


class TestHybrid(SavedScorerLaws):
    tolerance = 1e-6
    of_no_events = 0.0

    @pytest.fixture(params=["text", "ids"])
    def folder(self, run: Path, toy: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
        return hybrid_of(run, toy, tmp_path / "hybrid", request.param)

    @pytest.fixture
    def scorer(self, folder: Path) -> Scorer:
        return Recommender.load(folder).scorer()

    @pytest.fixture
    def reloaded(self, folder: Path, tmp_path: Path) -> Scorer:
        Recommender.load(folder).save(tmp_path)
        return Recommender.load(tmp_path).scorer()
