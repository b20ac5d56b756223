"""The split by cold items: who trains on what, what is held out, and what is told of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.histories import Histories
from fedrec.data.manifest import Manifest
from fedrec.data.prepare import prepare, prepare_tables, write_dataset
from fedrec.data.readers.raw import Frames
from fedrec.data.readers.sources import source_named
from fedrec.data.readers.tables import Tables
from fedrec.data.shard import NO_ITEM, Shard
from fedrec.data.split import LEAVE_ONE_OUT, Split, SplitOptions
from fedrec.federation.messages import Order
from fedrec.federation.node import Node
from fedrec.recsys.model.two_tower import TwoTowerModel
from tests.support.toy_world import small_config, toy_interactions, toy_items

UPPER = pl.DataFrame({"item_id": list("abcdeABCDE"), "cold": [False] * 5 + [True] * 5})
"""Items whose rows are their places in `abcdeABCDE`; the upper case is cold."""


def divided(*words: str) -> list[str]:
    """What users with these events keep of them: `-` is a held-out place with nothing in it."""
    rows = np.array(["abcdeABCDE".index(letter) for word in words for letter in word], dtype=np.uint32)
    found = Histories(pl.Series(words), np.array([len(word) for word in words]), rows)
    kept = Split(cold_share=0.5).cut_histories(found, UPPER)
    assert kept.users.to_list() == list(words)
    letters = "".join("abcdeABCDE-"[row] for row in kept.items)
    return [letters[end - length : end] for end, length in zip(np.cumsum(kept.lengths), kept.lengths, strict=True)]


@pytest.mark.parametrize(
    ("events", "kept"),
    [
        ("abAB", "abAB"),
        ("aAbBc", "aAB"),  # neither b, which is later than the validation item, nor c
        ("aAbBcC", "abBC"),  # nor an earlier cold event
        ("AabBC", "abBC"),
        ("abcA", "abc--"),  # only one: the others train
        ("aAbc", "abc--"),
        ("abc", "abc--"),
        ("ABa", "a--"),  # no warm event before the two
        ("ABC", "--"),
        ("A", "--"),
    ],
)
def test_a_history_is_cut_before_the_last_two_cold_events(events: str, kept: str) -> None:
    assert divided(events) == [kept]
    assert divided("aAB", events, "b") == ["aAB", kept, "b--"]


def by_hand(word: str) -> str:
    """The same, read off the rule for one user."""
    cold = [place for place, letter in enumerate(word) if letter.isupper()]
    if len(cold) > 1 and (warm := [letter for letter in word[: cold[-2]] if letter.islower()]):
        return "".join(warm) + word[cold[-2]] + word[cold[-1]]
    return "".join(letter for letter in word if letter.islower()) + "--"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text("abcdeABCDE", min_size=1, max_size=8), min_size=1, max_size=8))
def test_histories_are_cut_as_by_hand(words: list[str]) -> None:
    assert divided(*words) == [by_hand(word) for word in words]


def test_what_is_cold_depends_on_the_id_alone() -> None:
    """Not on order or neighbours; and a larger share holds the smaller one."""
    items = pl.DataFrame({"item_id": [f"i{number}" for number in range(5000)]})
    cold = {share: Split(cold_share=share).mark_cold_items(items)["cold"] for share in (0.1, 0.3)}
    assert Split(cold_share=0.1).mark_cold_items(items.reverse())["cold"].reverse().equals(cold[0.1])
    assert Split(cold_share=0.1).mark_cold_items(items.head(7))["cold"].equals(cold[0.1].head(7))
    assert (cold[0.3] | ~cold[0.1]).all()
    for share, marked in cold.items():  # within five standard deviations of a fair draw
        assert abs(int(marked.sum()) - share * 5000) < 5 * (share * (1 - share) * 5000) ** 0.5
    assert LEAVE_ONE_OUT.mark_cold_items(items).columns == ["item_id"]


def write_cold(folder: Path, share: float = 0.3) -> Manifest:
    return write_dataset(Frames(toy_interactions(), toy_items()), folder, name="toy", split=Split(cold_share=share))


@pytest.mark.parametrize("share", [0.2, 0.3, 0.5, 0.8])
def test_no_training_event_is_cold_and_all_held_out_items_are(share: float, tmp_path: Path) -> None:
    manifest = write_cold(tmp_path, share)
    shard, catalogue = Shard.load(tmp_path), Catalogue.load(tmp_path)
    cold = catalogue.frame["cold"].to_numpy()
    ranked, everyone = shard.ranked(range(len(shard))), range(len(shard))
    assert 0 < len(ranked) <= len(shard)
    assert not any(cold[shard.history(user, "train")].any() for user in everyone)
    crops = shard.training_windows(everyone, 9, seed=0, round=1)
    assert not cold[crops.items[crops.mask]].any()
    for split in ("validation", "test"):
        assert cold[shard.held_out(ranked, split)].all()
    for user in ranked:
        validation = shard.held_out([user], "validation").tolist()
        assert shard.history(user, "test").tolist() == shard.history(user, "train").tolist() + validation
        assert len(shard.history(user, "train")) > 0
    for user in set(everyone) - set(ranked.tolist()):  # no placeholder is ever read
        assert shard.history(user, "test").tolist() == shard.history(user, "train").tolist()
        assert NO_ITEM not in shard.history(user, "test")
    assert (manifest.cold_items, manifest.users) == (cold.sum(), len(shard))
    assert manifest.training_only_users == len(shard) - len(ranked)
    held_out = 2 * len(ranked)
    assert manifest.interactions == sum(len(shard.history(user, "train")) for user in everyone) + held_out
    assert f"{share:g} of the items" in manifest.split


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_all_events_together_are_those_of_the_histories(split: str, tmp_path: Path) -> None:
    assert write_cold(tmp_path).training_only_users > 0
    shard = Shard.load(tmp_path)
    users, items = shard.events(split)
    for user in range(len(shard)):
        assert items[users == user].tolist() == shard.history(user, split).tolist()


def test_the_fingerprint_is_that_of_the_same_items_in_another_split(toy: Path, tmp_path: Path) -> None:
    """The embeddings can be shared: nothing of an item's text has changed."""
    assert write_cold(tmp_path).catalogue_fingerprint == Catalogue.load(toy).fingerprint


def test_users_are_short_by_what_they_had_and_by_what_they_can_train_on(tmp_path: Path) -> None:
    """Of two events Bob is short however few are needed to train; Eve has had cold items alone."""
    items = pl.DataFrame({"item_id": [f"i{number}" for number in range(40)]})
    cold = Split(cold_share=0.5).mark_cold_items(items)
    frozen, warm = (cold.filter(pl.col("cold") == flag)["item_id"].to_list() for flag in (True, False))
    histories = {"ann": [warm[0], *frozen[:2]], "bob": warm[:2], "eve": frozen[:5], "zoe": warm[:3]}
    events = [(user, item, place) for user, had in histories.items() for place, item in enumerate(had)]
    log = pl.DataFrame(events, schema=["user_id", "item_id", "timestamp"], orient="row")
    described = items.with_columns(title=pl.col("item_id"), text=pl.col("item_id"))
    manifest = write_dataset(Frames(log, described), tmp_path, name="toy", split=Split(cold_share=0.5))
    assert (manifest.users, manifest.training_only_users, manifest.short_users_dropped) == (2, 1, 2)
    assert manifest.interactions == 3 + 3


def test_nobody_to_rank_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="toy: no user has events with two cold items after a training event"):
        write_cold(tmp_path / "out", share=1e-9)
    assert not (tmp_path / "out").exists()


def test_a_source_is_prepared_by_cold_items_under_a_name_of_its_own(tmp_path: Path) -> None:
    source = source_named("demo")
    asked = replace(source, split=SplitOptions("cold-items").choose(source.split))
    manifest = prepare(asked, tmp_path / "out", None, lambda done, total: None, print)
    assert (manifest.name, manifest.source) == ("demo-cold-items", "generated")
    assert "0.1 of the items" in manifest.split
    assert manifest.cold_items == Catalogue.load(tmp_path / "out").frame["cold"].sum()


def test_own_tables_are_prepared_by_cold_items(tmp_path: Path) -> None:
    toy_interactions().write_parquet(tmp_path / "log.parquet")
    tables = Tables(tmp_path / "log.parquet", None, "user_id", "item_id", "timestamp", ())
    manifest = prepare_tables(tables, tmp_path / "out", "mine", Split(cold_share=0.3))
    assert (manifest.name, manifest.cold_items) == ("mine", write_cold(tmp_path / "toy").cold_items)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_of_all_or_nothing_is_refused(share: float) -> None:
    with pytest.raises(InputError, match=r"`cold_share=.*`: some are held out, not all"):
        SplitOptions("cold-items", share)


def test_a_share_without_its_split_is_refused() -> None:
    published = Split(repeats=True)
    assert SplitOptions("leave-one-out").choose(published) is published
    with pytest.raises(InputError, match=r"`cold_share=0\.2` has no effect without `split=cold-items`"):
        SplitOptions("leave-one-out", 0.2)


def test_cold_items_of_ml_100k(real_data: Path, tmp_path: Path) -> None:
    """Most users have had two cold films; what they had after the last but one is left out."""
    source = replace(source_named("ml-100k"), split=Split(cold_share=0.1))
    manifest = prepare(source, tmp_path, real_data / "ml-100k.zip", lambda done, total: None, lambda text: None)
    assert (manifest.users, manifest.items) == (943, 1_682)
    assert 0.07 * 1_682 < manifest.cold_items < 0.13 * 1_682
    assert manifest.training_only_users < 943 / 4
    shard, cold = Shard.load(tmp_path), Catalogue.load(tmp_path).frame["cold"].to_numpy()
    assert not any(cold[shard.history(user, "train")].any() for user in range(len(shard)))


def test_training_knows_nothing_of_cold_items(model: TwoTowerModel, tmp_path: Path) -> None:
    """Not even as negatives, which would push them down: their texts could be anything at all."""
    write_cold(tmp_path)
    node = Node.open(tmp_path, small_config(negatives=8))
    known = node.setup.embeddings
    cold = ~np.isin(np.arange(24), known.trainable_rows)
    assert cold.any()
    blind = known.matrix.clone()
    blind[torch.from_numpy(cold)] = 7.0
    order = Order(1, np.arange(len(node.shard)), clip=1.0)
    update = node.train(order, model.adapter())
    replace(known, matrix=blind).save(tmp_path)
    other_node = Node.open(tmp_path, small_config(negatives=8))
    assert (other_node.setup.embeddings.matrix[torch.from_numpy(cold)] == 7.0).all()
    other = other_node.train(order, model.adapter())
    assert update.sums["diverged"] == other.sums["diverged"] == 0
    for name, delta in update.deltas.items():
        assert torch.equal(delta, other.deltas[name]), name
