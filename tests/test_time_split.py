"""Splits by ratio and by two moments: who reads what, who is ranked, and that no training event is from the future."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.data.cut import cut_by_ratio, cut_by_time
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.fingerprint import fingerprint_of
from fedrec.data.histories import Histories, build_shard
from fedrec.data.manifest import read_manifest
from fedrec.data.node_folders import SERVER, partition_dataset, prepare_node
from fedrec.data.partition import partition_evenly
from fedrec.data.prepare import write_dataset
from fedrec.data.readers.raw import Frames
from fedrec.data.readers.rules import Rules
from fedrec.data.readers.tables import Tables
from fedrec.data.shard import HELD, Shard
from fedrec.data.split import LEAVE_ONE_OUT, Split, SplitOptions, TimeCuts
from fedrec.exports.predictions import PredictionConfig, predict
from fedrec.recsys.evaluation.ranking import rank

CUTS = Split(time_cuts=TimeCuts(10, 20))

TIMES = {
    "ann": [1, 2, 3, 11, 12, 21, 22],
    "ben": [1, 2, 25],
    "cleo": [1, 2, 3, 15],
    "dan": [1, 2, 3],
    "eve": [12, 13, 21],
}
"""Eve came after the first moment; Dan left before it, Cleo before the second."""


def write(times: dict[str, list[int]], folder: Path, split: Split) -> Dataset:
    """A dataset in which the time of an event is the title of its item."""
    rows = [(user, f"{time}", time) for user, theirs in times.items() for time in theirs]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    ids = [f"{time}" for time in sorted(set(events["timestamp"]))]
    items = pl.DataFrame({"item_id": ids, "title": ids, "text": [f"item {time}" for time in ids]})
    write_dataset(Frames(events, items), folder, name="toy", split=split, rules=Rules(salts="by-id"))
    return Dataset.open(folder)


def times_of(dataset: Dataset, rows: np.ndarray) -> list[int]:
    return [int(dataset.catalogue.titles[row]) for row in rows]


def read_by(dataset: Dataset, user: str, split: str) -> list[int]:
    return times_of(dataset, dataset.shard.history(dataset.users.to_list().index(user), split))


def ranked_in(dataset: Dataset, split: str) -> dict[str, int]:
    """The users who are ranked, and the time of the item that is held out of their history."""
    users = dataset.shard.ranked(range(len(dataset.shard)), split)
    return {dataset.users[int(u)]: times_of(dataset, dataset.shard.held_out([u], split))[0] for u in users}


# ---- two moments


def test_two_moments_cut_every_history(tmp_path: Path) -> None:
    toy = write(TIMES, tmp_path / "out", CUTS)
    assert toy.users.to_list() == ["ann", "ben", "cleo", "dan"]
    assert ranked_in(toy, "validation") == {"ann": 11, "cleo": 15}
    assert ranked_in(toy, "test") == {"ann": 21, "ben": 25}
    assert [read_by(toy, "ann", split) for split in ("train", "test")] == [[1, 2, 3], [1, 2, 3, 11, 12]]
    assert [read_by(toy, "ben", split) for split in ("train", "test")] == [[1, 2], [1, 2]]
    assert [read_by(toy, "cleo", split) for split in ("train", "test")] == [[1, 2, 3], [1, 2, 3, 15]]
    assert read_by(toy, "dan", "test") == [1, 2, 3]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_users_who_are_ranked_in_a_split_are_predicted(split: str, tmp_path: Path) -> None:
    toy = write(TIMES, tmp_path / "out", CUTS)
    config = PredictionConfig(k=3, split=split, user_ids=True)
    predicted = predict(lambda histories: torch.rand(len(histories), len(toy.catalogue)), toy, config).held_out
    assert {user: int(item) for user, item in predicted.rows()} == ranked_in(toy, split)
    manifest = toy.manifest
    assert (manifest["users"], manifest["interactions"], manifest["split_dropped"]) == (4, 6 + 3 + 4 + 3, 1)
    assert (manifest["ranked_users"], manifest["training_only_users"]) == ({"validation": 2, "test": 2}, 1)
    assert manifest["steps"][-1] == {"step": "split: global-time", "users": 4, "items": 8, "events": 16}


def training_times(dataset: Dataset, held_out: int = 2) -> list[int]:
    """The times of all events that training may see, by each way to them."""
    shard = dataset.shard
    users = range(len(shard))
    windows = shard.training_windows(users, 50, seed=0, round=0, held_out=held_out)
    alone = np.concatenate([shard.training_events(user, held_out) for user in users])
    found = times_of(dataset, windows.items[windows.mask])
    assert sorted(found) == sorted(times_of(dataset, alone))
    return found


def test_nobody_trains_on_an_event_from_the_future(tmp_path: Path) -> None:
    toy = write(TIMES, tmp_path / "out", CUTS)
    assert max(training_times(toy)) < 10 <= min(ranked_in(toy, "validation").values())
    assert max(times_of(toy, toy.shard.events("train")[1])) < 10
    assert 10 <= max(training_times(toy, held_out=1)) < 20 <= min(ranked_in(toy, "test").values())
    assert max(times_of(toy, toy.shard.events("test")[1])) < 20
    popularity = dict(zip(toy.catalogue.ids, toy.catalogue.frame["popularity"], strict=True))
    assert popularity["1"] == 4
    assert not any(count for item, count in popularity.items() if int(item) >= 10)


def test_leave_one_out_leaks_on_the_same_events(tmp_path: Path) -> None:
    """The control: Ann trains on an event that is later than Cleo's test item."""
    toy = write(TIMES, tmp_path / "out", LEAVE_ONE_OUT)
    assert max(training_times(toy)) == 12 > ranked_in(toy, "test")["dan"] == 3


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[list[int]], int, int]:
    times = draw(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=9).map(sorted), min_size=1, max_size=6))
    first = draw(st.integers(1, 29))
    return times, first, draw(st.integers(first + 1, 30))


@settings(max_examples=100, deadline=None)
@given(worlds())
def test_histories_are_cut_as_by_hand(world: tuple[list[list[int]], int, int]) -> None:
    times, first, second = world
    flat = np.array([time for theirs in times for time in theirs])
    users = pl.Series([f"{user:02}" for user in range(len(times))])
    found = Histories(users, np.array([len(theirs) for theirs in times]), flat.astype(np.uint32), times=flat)
    _, shard = build_shard(cut_by_time(found, first, second), np.ones(len(times), dtype=bool), int)
    for user, theirs in enumerate(times):
        before, between, after = (
            [t for t in theirs if low <= t < high] for low, high in ((0, first), (first, second), (second, 99))
        )
        assert shard.history(user, "train").tolist() == before
        assert shard.history(user, "test").tolist() == before + between
        for split, events in (("validation", between), ("test", after)):
            ranked = shard.ranked([user], split).tolist()
            assert ranked == [user] * bool(events)
            assert shard.held_out(ranked, split).tolist() == events[:1]


def test_moments_that_are_not_named_are_after_shares_of_the_events(tmp_path: Path) -> None:
    """Of ten events those at 9 and 10 are the first ones after 80 and after 90 per cent."""
    day, start = 86_400, 1_704_067_200
    times = {"ann": [start + day * n for n in range(0, 10, 2)], "ben": [start + day * n for n in range(1, 10, 2)]}
    toy = write(times, tmp_path / "out", Split(time_cuts=TimeCuts()))
    cuts = {"validation_from": "2024-01-09T00:00:00+00:00", "test_from": "2024-01-10T00:00:00+00:00"}
    assert toy.manifest["split_rule"] == {"rule": "global-time", "repeats": False, **cuts}
    assert toy.manifest["split_asked"]["validation_from"] is None
    assert toy.split == Split(time_cuts=TimeCuts(**cuts))
    assert "at or after 2024-01-09T00:00:00+00:00" in toy.manifest["split"]
    assert (ranked_in(toy, "validation"), ranked_in(toy, "test")) == (
        {"ann": start + 8 * day},
        {"ben": start + 9 * day},
    )


@pytest.mark.parametrize(
    ("cuts", "says"),
    [
        (TimeCuts(20, 10), "`test_from` = 10 is not after `validation_from` = 20; give a later one"),
        (TimeCuts("2024-01-01", None), "these events have numbers for times"),
        (TimeCuts(10, 90), r"toy: no user has a test event by .*; there is nothing to train and test on"),
        (TimeCuts(0, 20), "toy: no user has"),
    ],
)
def test_moments_without_anybody_to_rank_are_refused(cuts: TimeCuts, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        write(TIMES, tmp_path / "out", Split(time_cuts=cuts))


# ---- ratio


@pytest.mark.parametrize(
    ("events", "share", "train", "validation", "test"),
    [
        (10, 0.1, 8, 1, 1),
        (10, 0.2, 6, 2, 2),
        (3, 0.1, 1, 1, 1),
        (29, 0.1, 25, 2, 2),
        (7, 0.3, 3, 2, 2),
        (20, 0.45, 2, 9, 9),
    ],
)
def test_the_last_share_of_each_history_is_held_out(
    events: int, share: float, train: int, validation: int, test: int, tmp_path: Path
) -> None:
    """Of a part the first event is the item to rank; the history of test has all of the validation part."""
    assert train + validation + test == events
    toy = write({"ann": list(range(events))}, tmp_path / "out", Split(held_out_share=share))
    assert read_by(toy, "ann", "train") == list(range(train))
    assert read_by(toy, "ann", "test") == list(range(train + validation))
    assert (ranked_in(toy, "validation"), ranked_in(toy, "test")) == ({"ann": train}, {"ann": train + validation})
    assert toy.manifest["split_dropped"] == test - 1


def test_a_ratio_of_one_event_each_is_leave_one_out() -> None:
    found = Histories(pl.Series(["a", "b"]), np.array([5, 3]), np.arange(8))
    cut = cut_by_ratio(found, 0.1)
    assert cut.items.tolist() == list(range(8))
    assert cut.held is not None
    assert cut.held.tolist() == [[2, 1], [2, 1]]


# ---- what is asked for


def test_a_split_is_chosen_by_name() -> None:
    published = Split(repeats=True)
    assert SplitOptions().choose(published) is SplitOptions("leave-one-out").choose(published) is published
    assert SplitOptions("leave-one-out").choose(CUTS) == LEAVE_ONE_OUT
    assert SplitOptions("published").choose(CUTS) is CUTS
    assert SplitOptions("ratio").choose(published) == Split(repeats=True, held_out_share=0.1)
    assert SplitOptions("global-time", test_from=9).choose(LEAVE_ONE_OUT) == Split(time_cuts=TimeCuts(None, 9))
    assert [Split(cold_share=0.1).suffix, CUTS.suffix, LEAVE_ONE_OUT.suffix] == ["-cold-items", "-global-time", ""]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rule": "by-week"}, "`split` = 'by-week' is not known; choose leave-one-out or ratio or global-time or cold"),
        ({"held_out_share": 0.1}, "`held_out_share=0.1` has no effect without `split=ratio`"),
        ({"rule": "ratio", "test_from": "2024-01-01"}, "`test_from=2024-01-01` has no effect without"),
        ({"rule": "ratio", "held_out_share": 0.5}, "give a share between 0 and 0.5"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        SplitOptions(**options)


@pytest.mark.parametrize(
    "split", [CUTS, Split(held_out_share=0.2, repeats=True), Split(time_cuts=TimeCuts("2024-01-01", "2025"))]
)
def test_a_split_is_recorded_and_read(split: Split) -> None:
    assert Split.from_record({"split": split.description, "split_rule": split.as_record()}, "it") == split


# ---- folders, nodes, ranking


def test_held_out_counts_are_kept_beside_the_histories(tmp_path: Path) -> None:
    write(TIMES, tmp_path / "out", CUTS)
    before = fingerprint_of(tmp_path / "out")
    np.save(tmp_path / "out" / HELD, np.array([4, 1, 2, 1, 1, 0, 0, 0], dtype=np.int32))
    assert fingerprint_of(tmp_path / "out") != before
    for damaged in ([3, 1], [1, 3, 2, 1, 1, 0, 0, 0], [3, -1, 2, 1, 1, 0, 0, 0]):
        np.save(tmp_path / "out" / HELD, np.array(damaged, dtype=np.int32))
        with pytest.raises(InputError, match="do not belong together; prepare the data again"):
            Shard.load(tmp_path / "out")
    np.save(tmp_path / "out" / HELD, np.array([6, 1, 2, 1, 1, 0, 0, 0], dtype=np.int32))
    with pytest.raises(InputError, match="a history has no event to train on"):
        Shard.load(tmp_path / "out")
    write(TIMES, tmp_path / "out", LEAVE_ONE_OUT)
    assert not (tmp_path / "out" / HELD).exists()


def test_a_node_cuts_its_own_table_by_the_same_moments(tmp_path: Path) -> None:
    toy = write(TIMES, tmp_path / "all", CUTS)
    nodes = partition_dataset(toy, tmp_path / "federation", partition_evenly(len(toy.users), 2))
    public = read_manifest(tmp_path / "federation" / SERVER)
    assert not {"steps", "time_range", "ranked_users"} & public.keys()
    rows = "".join(f"{user},{time},{time}\n" for user, times in TIMES.items() for time in times)
    (tmp_path / "own.csv").write_text(f"user_id,item_id,timestamp\n{rows}")
    tables = Tables(tmp_path / "own.csv", None, "user_id", "item_id", "timestamp", ())
    prepare_node(tmp_path / "federation" / SERVER, tables, tmp_path / "own", lambda line: None)
    own = Dataset.open(tmp_path / "own")
    for split in ("validation", "test"):
        parts = [ranked_in(Dataset.open(node), split) for node in nodes]
        assert ranked_in(own, split) == ranked_in(toy, split) == parts[0] | parts[1]


def test_users_without_an_item_to_rank_are_not_ranked(tmp_path: Path) -> None:
    """Scores grow with time: whoever is ranked in test comes after the later items alone."""
    toy = write(TIMES, tmp_path / "out", CUTS)

    def score(histories: list[np.ndarray]) -> torch.Tensor:
        return torch.arange(len(toy.catalogue), dtype=torch.float32).repeat(len(histories), 1)

    times = [int(title) for title in toy.catalogue.titles]
    test = rank(score, toy.shard, range(4), "test").ranks  # pyright: ignore[reportArgumentType]
    assert test.tolist() == [sum(time > 21 for time in times), sum(time > 25 for time in times)]
    validation = rank(score, toy.shard, range(4), "validation").ranks  # pyright: ignore[reportArgumentType]
    assert validation.tolist() == [sum(time > 11 for time in times), sum(time > 15 for time in times)]
