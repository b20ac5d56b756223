"""Made-up tables: what they promise of lengths, popularity, taste and seeds, and that they can be prepared."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from fedrec.cli import app
from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.data.synthetic.random_tables import (
    INTERACTIONS,
    ITEMS,
    SHORTEST,
    SyntheticConfig,
    draw_lengths,
    synthesise,
    zipf_ranks,
)
from fedrec.data.synthetic.vocabulary import load_vocabulary

SMALL = SyntheticConfig(users=2000, items=1500, interactions=40_000, seed=1)


def made(config: SyntheticConfig, out: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The interactions and the items that were written."""
    synthesise(config, out, lambda done, total: None)
    return pl.read_csv(out / INTERACTIONS), pl.read_csv(out / ITEMS)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[pl.DataFrame, pl.DataFrame]:
    return made(SMALL, tmp_path_factory.mktemp("synthetic") / "out")


def test_there_are_as_many_as_asked(world: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    events, items = world
    assert events.columns == ["user_id", "item_id", "timestamp"]
    assert 0.99 * SMALL.interactions <= events.height <= SMALL.interactions
    assert events["user_id"].n_unique() == SMALL.users
    assert items["item_id"].to_list() == list(range(SMALL.items))
    assert set(events["item_id"]) <= set(items["item_id"])


def test_hardly_any_item_comes_twice_to_a_user(world: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    events, _ = world
    assert events.unique(["user_id", "item_id"]).height > 0.97 * events.height


def test_few_users_and_few_items_have_most_events(world: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    events, _ = world
    for column in ("user_id", "item_id"):
        counts = events.group_by(column).len()["len"].sort(descending=True)
        assert 0.35 < counts.head(len(counts) // 10).sum() / events.height < 0.8, column
        assert 0.05 < counts.tail(len(counts) // 2).sum() / events.height < 0.25, column


def test_rows_are_in_no_order(world: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    events, _ = world
    for column in ("user_id", "timestamp"):
        assert 0.45 < (events[column].diff() > 0).mean() < 0.55, column  # pyright: ignore[reportOperatorIssue]


def test_users_keep_to_their_genres_and_texts_tell_them(world: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    events, items = world
    names = [genre.name for genre in load_vocabulary().genres]
    genre = items.select("item_id", genre=pl.col("text").str.extract(rf"\b({'|'.join(names)})\b"))
    assert genre["genre"].n_unique() == len(names)
    counts = events.join(genre, on="item_id").group_by("user_id", "genre").len().sort("len", descending=True)
    liked = counts.group_by("user_id").agg(pl.col("len").head(3).sum())["len"].sum()
    assert liked > 0.7 * events.height


def test_the_seed_decides(tmp_path: Path) -> None:
    small = SyntheticConfig(users=50, items=300, interactions=500, seed=3)
    one, same, other = (made(config, tmp_path / str(place)) for place, config in enumerate((small, small, SMALL)))
    assert all(left.equals(right) for left, right in zip(one, same, strict=True))
    assert not one[0].equals(other[0])


@settings(max_examples=50, deadline=None)
@given(
    users=st.integers(1, 3000),
    items=st.integers(100, 10_000),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
def test_lengths_add_up_between_their_bounds(users: int, items: int, share: float, seed: int) -> None:
    bound = SyntheticConfig(users, items, 0, seed).bound
    config = SyntheticConfig(users, items, round(users * (SHORTEST + share * (bound // 2 - SHORTEST))), seed)
    lengths = draw_lengths(config, np.random.default_rng(seed))
    assert lengths.shape == (users,)
    assert lengths.min() >= SHORTEST
    assert lengths.max() <= bound
    assert config.interactions - users <= lengths.sum() <= config.interactions


@settings(max_examples=50, deadline=None)
@given(draws=st.integers(1, 500), room=st.integers(2, 20), shift=st.floats(0, 1, exclude_max=True))
def test_evenly_spaced_draws_are_different_items(draws: int, room: int, shift: float) -> None:
    """For lists at least twice as long as the draws."""
    ranks = zipf_ranks((np.arange(draws) + shift) / draws, np.full(draws, draws), room * draws)
    assert ranks[0] >= 0
    assert (np.diff(ranks) > 0).all()
    assert ranks[-1] < room * draws


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            SyntheticConfig(100, 1000, 200, 0),
            "`interactions=200` are 2.0 for each of `users=100`; with `items=1000`",
        ),
        (SyntheticConfig(100, 50, 1000, 0), "10.0 for each of `users=100`; with `items=50`, give 3 to 3 for each"),
    ],
)
def test_numbers_that_do_not_go_together_are_refused(config: SyntheticConfig, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        made(config, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for out in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(InputError, match=r"`out` .* is not empty; choose another folder"):
            made(SMALL, out)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_crash_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesise(SMALL, tmp_path / "out", stop)
    assert list(tmp_path.iterdir()) == []


def test_from_the_command_line_to_a_prepared_folder(tmp_path: Path) -> None:
    def ask(*arguments: object) -> dict[str, object]:
        return json.loads(CliRunner().invoke(app, ["data", *map(str, arguments), "--json"]).stdout)

    sizes = ["--users", 200, "--items", 400, "--interactions", 3000]
    told = ask("synthesise", *sizes, "--seed", 5, "--out", tmp_path / "made")
    assert (told["users"], told["items"]) == (200, 400)
    tables = [tmp_path / "made" / INTERACTIONS, "--items", tmp_path / "made" / ITEMS]
    manifest = ask("import", *tables, "--name", "made", "--out", tmp_path / "prepared", "--text-columns", "title, text")
    assert (manifest["users"], manifest["items"], manifest["name"]) == (200, 400, "made")
    assert manifest["interactions"] + manifest["repeats_dropped"] == told["interactions"]  # pyright: ignore[reportOperatorIssue]
    assert len(Shard.load(tmp_path / "prepared")) == 200
