"""The fairness report: groups and shares by hand, in Python and on the command line, alone and beside another run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

import fedrec
from fedrec.data.catalogue import Catalogue
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.recsys.evaluation.evaluate import rank_all_users
from fedrec.recsys.evaluation.fairness import compare_groups, gini, report_fairness
from fedrec.recsys.evaluation.groups import (
    ACTIVE,
    MAX_VALUES,
    count_events,
    group_users,
    split_by_popularity,
    split_in_thirds,
)
from fedrec.recsys.evaluation.ranking import Ranking
from fedrec.recsys.evaluation.significance import bootstrap_interval
from tests.support.cli import Fedrec, is_refused
from tests.support.toy_world import toy_items


@pytest.fixture(scope="module")
def films(toy: Path) -> Dataset:
    return Dataset.open(toy)


# ---- shares by hand


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([5, 5, 5, 5], 0.0),
        ([0, 0, 0, 8], 3 / 4),  # one item of four has everything: 1 - 1/4
        ([0, 0, 0], 0.0),
        ([1, 3], (-1 * 1 + 1 * 3) / (2 * 4)),
    ],
)
def test_gini_by_hand(counts: list[int], expected: float) -> None:
    assert gini(np.array(counts)) == pytest.approx(expected)


def test_gini_is_half_the_mean_difference_over_the_mean() -> None:
    """The definition: Σᵢⱼ |xᵢ - xⱼ| / (2 N² mean)."""
    x = np.random.default_rng(0).integers(0, 50, 30)
    expected = np.abs(x[:, None] - x).sum() / (2 * 30**2 * x.mean())
    assert gini(x) == pytest.approx(expected)


def test_items_by_thirds_of_their_events() -> None:
    """Of 12 events, the head has the item of 6, the middle that of 3, which begins at 6, and the tail the others."""
    masks = split_by_popularity(np.array([1, 6, 0, 3, 2]))
    assert {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()} == {
        "head": [1],
        "middle": [3],
        "tail": [0, 2, 4],
    }
    nothing = split_by_popularity(np.zeros(3, dtype=np.int64))
    assert nothing["tail"].all()


def test_thirds_of_equal_values_stay_together() -> None:
    assert [mask.tolist() for mask in split_in_thirds(np.array([3, 3, 3, 8]))] == [
        [True, True, True, False],
        [False, False, False, False],
        [False, False, False, True],
    ]


def test_the_interval_of_one_value_is_that_value() -> None:
    assert bootstrap_interval(np.full(7, 0.25), np.random.default_rng(0)) == (0.25, 0.25)


def test_the_interval_is_that_of_the_mean() -> None:
    """Of n coin flips the mean's standard deviation is 1 / (2 √n)."""
    low, high = bootstrap_interval(np.tile([0.0, 1.0], 200), np.random.default_rng(0))
    assert low == pytest.approx(0.5 - 1.96 / 40, abs=0.005)
    assert high == pytest.approx(0.5 + 1.96 / 40, abs=0.005)


# ---- groups of the toy's users


def test_each_way_to_group_covers_the_users(films: Dataset) -> None:
    users = films.shard.ranked(range(12))
    groups = group_users(films, users, "test")
    assert list(groups) == [
        "length of history",
        "activity",
        "popularity of the held-out item",
        "year of the held-out item",
        "genres of the held-out item",
    ]
    for by, masks in groups.items():
        assert (np.sum(list(masks.values()), axis=0) == 1).all(), by
    genres = groups["genres of the held-out item"]
    assert {name: np.flatnonzero(mask).tolist() for name, mask in genres.items()} == {
        "Cooking": list(range(6)),
        "Space": list(range(6, 12)),
    }
    lengths = np.array([len(films.shard.history(user)) for user in users])
    active = groups["activity"][f"most active {ACTIVE:.0%}"]
    assert lengths[active].min() > lengths[~active].max() or lengths[active].min() == lengths.max()


def with_columns(films: Dataset, **columns: Sequence[object]) -> Dataset:
    frame = toy_items().with_columns(pl.Series(name, values) for name, values in columns.items())
    return Dataset(films.folder, films.manifest, Catalogue(frame))


def test_columns_of_several_values_overlap_and_free_text_is_left_out(films: Dataset) -> None:
    data = with_columns(
        films,
        genres=["Cooking|Short"] * 12 + ["Space"] * 11 + [""],
        story=[f"story {n}" for n in range(24)],
        length=[None] * 12 + [90.0] * 12,
    )
    assert MAX_VALUES > 24
    groups = group_users(data, data.shard.ranked(range(12)), "test")
    genres = groups["genres of the held-out item"]
    assert np.array_equal(genres["Cooking"], genres["Short"])
    assert set(groups["length of the held-out item"]) == {"unknown", "90 to 90"}
    assert len(groups["story of the held-out item"]) <= 9
    many = with_columns(films, story=[f"{n}|{n + 100}|{n + 200}" for n in range(24)])
    assert "story of the held-out item" not in group_users(many, data.shard.ranked(range(12)), "test")


def ranking(ranks: list[int], listed: list[int]) -> Ranking:
    return Ranking(np.array(ranks), float(np.mean(np.array(listed) > 0)), np.array(listed))


def test_the_report_by_hand(films: Dataset) -> None:
    """Cooks are ranked first, and the others beyond ten; every list shows the films of the head alone."""
    head = split_by_popularity(count_events(films))["head"]
    report = report_fairness(ranking([0] * 6 + [15] * 6, (head * 12).tolist()), films, "test")
    quality = {row.group: row for row in report.quality if row.by == "genres of the held-out item"}
    assert (quality["Cooking"].ndcg, quality["Cooking"].ndcg_low, quality["Cooking"].recall) == (1, 1, 1)
    assert (quality["Space"].ndcg, quality["Space"].recall_high, quality["Space"].users) == (0, 0, 6)
    exposure = {part.part: part for part in report.exposure}
    assert exposure["head"].recommendations == pytest.approx(1)
    assert sum(part.events for part in report.exposure) == pytest.approx(1)
    assert sum(part.items for part in report.exposure) == 24
    assert report.gini == pytest.approx(1 - head.sum() / 24)


def test_the_difference_is_paired(films: Dataset) -> None:
    ours, theirs = ranking([0] * 12, [1] * 24), ranking([0] * 6 + [1] * 6, [1] * 24)
    found = {row.group: row for row in compare_groups(ours, theirs, films, "test")}
    assert (found["Cooking"].difference, found["Cooking"].low, found["Cooking"].high) == (0, 0, 0)
    assert found["Space"].difference == pytest.approx(1 - 1 / np.log2(3))
    assert found["Space"].low == pytest.approx(found["Space"].difference)


def test_the_lists_are_counted(films: Dataset) -> None:
    """Each user's list has ten places, and the coverage is that of the counts."""
    scores = np.random.default_rng(0).random((1, 24)).astype(np.float32)

    def score(histories: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.repeat(scores, len(histories), axis=0))

    found = rank_all_users(score, films.shard, "test")
    assert found.listed.sum() == 12 * 10
    assert found.coverage == (found.listed > 0).mean()


# ---- where it is asked for


def test_a_run_reports_on_itself(toy: Path, run: Path, films: Dataset) -> None:
    report = fedrec.load(run).fairness(films)
    frame = pl.DataFrame(report.quality)
    whole = fedrec.load(run).evaluate(films)
    for by in frame["by"].unique():
        rows = frame.filter(pl.col("by") == by)
        assert (rows["ndcg"] * rows["users"]).sum() / 12 == pytest.approx(whole["ndcg@10"]), by
        assert (rows["ndcg_low"] <= rows["ndcg"]).all()
        assert (rows["ndcg"] <= rows["ndcg_high"]).all()
    assert report.coverage == whole["coverage@10"]
    popular = fedrec.baselines.Popularity().fit(films).fairness(films)
    assert popular.gini > report.gini, "popularity shows everybody the same"


def test_the_command_reports_alone_and_against(fedrec: Fedrec, run: Path, toy: Path) -> None:
    told = fedrec("evaluate", run, "--data", toy, "--groups", "--json").answer
    assert told["groups"].keys() == {"users", "quality", "exposure", "gini", "coverage"}
    both = fedrec("evaluate", run, "--data", toy, "--groups", "--against", run, "--json").answer["groups"]
    assert {row["difference"] for row in both["differences"]} == {0.0}
    assert both["against"] == told["groups"]
    shown = fedrec("evaluate", run, "--data", toy, "--groups", "--against", run)
    assert shown.code == 0
    assert all(word in shown.out for word in ("length of history", "most active 5%", "head", "Gini", "against"))


def test_against_needs_groups_and_the_same_data(fedrec: Fedrec, run: Path, toy: Path, tmp_path: Path) -> None:
    is_refused(fedrec("evaluate", run, "--data", toy, "--against", run), "--against", "--groups")
    is_refused(fedrec("evaluate", run, "--data", toy, "--groups", "--against", tmp_path), str(tmp_path))


def test_nobody_to_group_is_refused(films: Dataset) -> None:
    nobody = Dataset(films.folder, films.manifest, films.catalogue)
    object.__setattr__(nobody, "shard", films.shard.select(np.zeros(0, dtype=np.int64)))
    with pytest.raises(InputError, match="no groups"):
        report_fairness(ranking([], [0] * 24), nobody, "test")
