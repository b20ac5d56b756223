"""The laws of the closed form's sums: alone, anywhere, private."""

from typing import Any

import pytest

from tests.laws.statistics_laws import StatisticsLaws

SHORT = {"ridges": "1,10", "decodes": "0.1,1", "feature_width": 32}
RUNS: dict[str, dict[str, Any]] = {
    "text": {"method": "closed-form"},
    "ids": {"method": "closed-form", "features": "ids"},
    "text from both sides": {"method": "closed-form", "reverse": 0.5, "decays": 0.5},
    "text of two decays": {"method": "closed-form", "decays": "0.5,0.9"},
    "ids of two decays": {"method": "closed-form", "features": "ids", "decays": "0.5,0.9"},
    "hybrid": {"method": "hybrid", "rounds": 1, "validate_every": 1, "blend_shares": "0.3,0.6"},
}


class TestClosedForm(StatisticsLaws):
    """The sums over texts and over ids, alone and beside the towers."""

    @pytest.fixture(params=RUNS)
    def settings(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        return SHORT | RUNS[request.param]


class TestFewBits(StatisticsLaws):
    """The sums of single users in few bits: they are summed as they are decoded."""

    @pytest.fixture(params=[{"bits": 1}, {"bits": 8, "decays": "0.5,0.9"}], ids=str)
    def settings(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        return SHORT | {"method": "closed-form"} | request.param
