"""The description of a dataset: figures by hand, the page of the terminal, and the picture."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from fedrec.data.dataset import Dataset
from fedrec.data.description import Part
from fedrec.data.errors import InputError
from fedrec.data.prepare import write_dataset
from fedrec.data.readers.raw import Frames
from fedrec.data.readers.rules import Rules
from fedrec.data.split import LEAVE_ONE_OUT, Split, TimeCuts
from fedrec.describe import plot_description
from tests.support.cli import is_refused


def toy(folder: Path, split: Split = LEAVE_ONE_OUT) -> Path:
    """Ann has a b c d e, Ben a b c, Cleo a b d; item f is described and nobody's, e is known by its id alone."""
    words = {"ann": "abcde", "ben": "abc", "cleo": "abd"}
    rows = [(user, item, 10 * time) for user, word in words.items() for time, item in enumerate(word)]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    texts = ["x" * length for length in (2, 4, 6, 8, 10)]
    items = pl.DataFrame({"item_id": list("abcdf"), "title": list("ABCDF"), "text": texts})
    write_dataset(Frames(events, items), folder, name="toy", split=split, rules=Rules(salts="by-id"))
    return folder


def test_a_description_counts_by_split(tmp_path: Path) -> None:
    """Training events: a b c of Ann, a of Ben, a of Cleo."""
    about = Dataset.open(toy(tmp_path / "out")).describe()
    assert (about.users, about.items, about.events) == (3, 6, 11)
    assert about.sparsity == 1 - 11 / (3 * 6)
    assert about.parts == {
        "train": Part(users=3, events=5, items=3, history=5 / 3),
        "validation": Part(users=3, events=3, items=2, history=5 / 3),
        "test": Part(users=3, events=3, items=3, history=8 / 3),
    }
    assert about.histories.values.tolist() == [1, 1, 3]
    assert about.popularity.values.tolist() == [0, 0, 0, 1, 1, 3]
    assert about.head_share(0.1) == 3 / 5
    assert about.texts.values.tolist() == [1, 2, 4, 6, 8, 10]
    assert (about.bare_items, about.time_range) == (1, (0, 40))
    assert about.histories.quantiles == (1, 1, 1, 1, 1, 1, 3)
    assert about.histories.mean == 5 / 3


def test_a_description_of_two_moments_counts_who_is_ranked(tmp_path: Path) -> None:
    """All train on a and b; c and d come at 20 to all but Ann's d at 30, her e at 40."""
    about = Dataset.open(toy(tmp_path / "out", Split(time_cuts=TimeCuts(20, 40)))).describe()
    assert about.events == 11
    assert about.parts["train"] == Part(users=3, events=6, items=2, history=2)
    assert about.parts["validation"] == Part(users=3, events=3, items=2, history=2)
    assert about.parts["test"] == Part(users=1, events=1, items=1, history=4)


def test_the_page_and_its_data_say_the_same(tmp_path: Path, fedrec: Callable) -> None:
    folder = toy(tmp_path / "out")
    page, data = fedrec("data", "describe", folder), fedrec("data", "describe", folder, "--json")
    assert "toy: 3 users, 6 items, 11 events; sparsity 38.89%" in page.out
    assert "the 1% most popular items 60%, the 10% most popular items 60%; 3 items have none" in page.out
    record = json.loads(data.out)
    assert (record["users"], record["splits"]["test"]["history"]) == (3, 8 / 3)
    assert record["histories"]["100%"] == 3
    is_refused(fedrec("data", "describe", tmp_path / "none"), "is not a prepared dataset")


@pytest.mark.parametrize("split", [LEAVE_ONE_OUT, Split(time_cuts=TimeCuts(20, 40))])
def test_a_picture_is_drawn(split: Split, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    about = Dataset.open(toy(tmp_path / "out", split)).describe()
    plot_description(about, tmp_path / "toy.png")
    assert (tmp_path / "toy.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"`plot` .* cannot be written .*; give a file\.png in a folder of yours"):
        plot_description(about, tmp_path / "nowhere" / "toy.png")


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = Dataset.open(toy(tmp_path / "out")).describe()
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"`plot` needs matplotlib: pip install 'fedrec\[plots\]'"):
        plot_description(about, tmp_path / "toy.png")
