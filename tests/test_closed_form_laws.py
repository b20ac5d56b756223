"""The laws of the closed form and of the hybrid: alone, anywhere, private."""

from typing import Any

import numpy as np
import pytest
from torch import Tensor

from fedrec.federation.config import RunConfig
from fedrec.recsys.closed_form.config import ClosedFormConfig
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.training.closed_form import ClosedFormMethod
from fedrec.recsys.training.hybrid import HybridMethod
from fedrec.recsys.training.local_training import FitConfig
from fedrec.recsys.training.method import FederatedMethod, TwoTowerMethod
from tests.laws.method_laws import MethodLaws
from tests.laws.statistics_laws import StatisticsLaws
from tests.support.toy_world import small_config

SHORT = {"ridges": "1,10", "decodes": "0.1,1", "feature_width": 32}
RUNS: dict[str, dict[str, Any]] = {
    "text": {"method": "closed-form"},
    "ids": {"method": "closed-form", "features": "ids"},
    "text from both sides": {"method": "closed-form", "reverse": 0.5, "decay": 0.5},
    "hybrid": {"method": "hybrid", "rounds": 1, "validate_every": 1, "blend_shares": "0.3,0.6"},
}


class TestClosedForm(StatisticsLaws):
    """The sums over texts and over ids, alone and beside the towers."""

    @pytest.fixture(params=RUNS)
    def settings(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        return SHORT | RUNS[request.param]


class TestFewBits(StatisticsLaws):
    """The sums of single users in few bits: they are summed as they are decoded."""

    @pytest.fixture(params=[1, 8])
    def settings(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        return SHORT | {"method": "closed-form", "bits": request.param}


class TestHybridTowers(MethodLaws):
    """A hybrid's towers are trained as they are alone."""

    @pytest.fixture
    def method(self, model: TwoTowerModel, embeddings: Tensor) -> FederatedMethod:
        rows = np.arange(len(embeddings))
        fit = FitConfig(negatives=16, precision="float32")
        towers = TwoTowerMethod(model, embeddings, rows, fit, seed=0, pooled=False, held_out=2)
        return HybridMethod(towers, ClosedFormMethod(embeddings, rows, ClosedFormConfig(feature_width=16), 0, 2))

    @pytest.fixture
    def adapter(self, bent: dict[str, Tensor]) -> Adapter:
        return bent

    @pytest.fixture
    def config(self) -> RunConfig:
        return small_config(method="hybrid", rounds=2)
