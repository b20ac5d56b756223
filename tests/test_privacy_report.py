"""Utility under differential privacy: the synthetic federation, the measurement on a small one, and its report."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import privacy_utility
from benchmarks.privacy_utility import EPSILONS, measure
from benchmarks.report.document import render_page
from benchmarks.report.privacy import PRIVACY, read_privacy
from benchmarks.report.privacy_plot import privacy_picture
from benchmarks.report.sources import Results
from benchmarks.synthetic_walks import PART, Walks
from fedrec.data.errors import InputError

FIGURES = {
    "relation": "add or remove one user",
    "repetitions": 3,
    "worlds": [
        {
            "name": "toy",
            "users": 1200,
            "items": 24,
            "neighbours": 5,
            "pairs": 60,
            "delta": 1e-4,
            "texts_alone": 0.05,
            "without_privacy": 0.2,
            "points": [{"epsilon": 1.0, "noise": 3.0, "ndcg_10": 0.1, "deviation": 0.01}],
        }
    ],
}


def write_figures(root: Path, figures: object) -> None:
    (root / PRIVACY).parent.mkdir()
    (root / PRIVACY).write_text(json.dumps(figures), "utf-8")


def test_a_table_and_a_plot_come_from_the_figures(tmp_path: Path) -> None:
    write_figures(tmp_path, FIGURES)
    result = read_privacy(tmp_path)
    assert result
    page = render_page(Results([], [], [], result))
    assert "| toy | 1,200 | 1.0e-04 | 5 | 60 | 0.0500 | 0.1000 ± 0.0100 (50%) | 0.2000 | – |" in page
    assert privacy_picture(result).figures == {"toy": {5: [(1.0, 0.1), (math.inf, 0.2)]}}


def test_without_figures_there_is_no_section(tmp_path: Path) -> None:
    assert read_privacy(tmp_path) is None
    assert "Differential privacy" not in render_page(Results([], [], [], None))


def test_damaged_figures_are_refused(tmp_path: Path) -> None:
    write_figures(tmp_path, FIGURES | {"worlds": [{"name": "toy"}]})
    with pytest.raises(
        InputError, match=r"worlds\.0\.users: field required; make it again with `fedrec bench privacy`"
    ):
        read_privacy(tmp_path)


def test_walkers_are_the_same_in_any_population() -> None:
    few, many = Walks(PART + 30), Walks(PART + 2000)
    last = list(few.parts())[1]
    again = list(many.parts())[1]
    assert len(last) == 30
    assert all(np.array_equal(last.full_history(user), again.full_history(user)) for user in range(30))


def test_a_measurement_is_kept_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less noise keeps more, and histories tell more than texts alone."""
    monkeypatch.setattr(privacy_utility, "NEIGHBOURS", (5, 20))
    monkeypatch.setattr(privacy_utility, "REPETITIONS", 2)
    first = measure({}, 1500, tmp_path)
    assert [world["neighbours"] for world in first["worlds"]] == [5, 20]
    for world in first["worlds"]:
        points = world["points"]
        assert [point["epsilon"] for point in points] == list(EPSILONS)
        assert world["texts_alone"] < world["without_privacy"]
        assert [p["noise"] for p in points] == sorted((p["noise"] for p in points), reverse=True)
    assert measure({}, 1500, tmp_path)["worlds"] == first["worlds"], "noise is fresh: the same figures were kept"
