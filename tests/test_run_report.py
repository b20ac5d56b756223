"""The report of a run: what is on the page, what is not, and that it loads nothing."""

import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import fedrec as library
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.run_report.charts import draw_curves, draw_traffic
from fedrec.run_report.item_map import map_items, popular_rows, principal_plane
from fedrec.run_report.page import RunReport, Wanted, render_page, write_report
from tests.support.cli import Fedrec, is_refused
from tests.support.closed_form import HYBRID
from tests.support.closed_form_runs import finished


class Page(HTMLParser):
    """A page taken apart: its tags with their attributes, and the text outside of styles and scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._hidden = "", 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._hidden += tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        self.text += "" if self._hidden else data


@pytest.fixture(scope="module")
def hybrid(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "hybrid"
    finished(toy, out, **HYBRID)
    return out


@pytest.fixture(scope="module")
def page(hybrid: Path, toy: Path) -> str:
    """The page with every part."""
    return render_page(RunReport(library.load(hybrid), Wanted(Dataset.open(toy), groups=True, nodes=True)))


def test_the_command_writes_the_page(hybrid: Path, toy: Path, page: str, fedrec: Fedrec, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    asked = ("report", hybrid, "--out", out, "--groups", "--nodes", "--data", toy)
    assert fedrec(*asked, "--json").answer == {"out": str(out)}
    assert out.read_text("utf-8") == page


def test_the_page_has_every_part_that_was_asked_for(hybrid: Path, page: str) -> None:
    run, shown = library.load(hybrid), Page(page)
    for title in ("Training", "Quality", "What crossed", "Privacy", "Contribution of the nodes", "Items", "Settings"):
        assert title in shown.text
    assert f"{run.metrics['test']['ndcg@10']:.4f}" in shown.text
    assert run.card["model_version"] in shown.text
    assert run.card["data"]["catalogue_fingerprint"] in shown.text
    assert "Groups of users" in shown.text
    assert "NDCG@10 lost without the node" in shown.text
    assert "No differential privacy" in shown.text
    assert "The bread" in shown.text
    assert [tag for tag, _ in shown.tags].count("circle") == 24


def test_the_page_loads_nothing(page: str) -> None:
    """No address but names of XML, no part of another file, and a policy under which a browser would load none."""
    found = Page(page)
    assert not {"link", "img", "iframe", "object", "video", "audio", "base"} & {tag for tag, _ in found.tags}
    for tag, attributes in found.tags:
        assert not {"src", "srcset", "action", "data"} & attributes.keys(), tag
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#"), tag
    assert set(re.findall(r"https?://[^\"'\s<>)]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not re.search(r"url\((?!#)|@import|fetch\(|XMLHttpRequest", page)
    (policy,) = [a["content"] for _, a in found.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_nobody_is_on_the_page(page: str, toy: Path) -> None:
    dataset = Dataset.open(toy)
    assert not [user for user in dataset.users if user in page]
    assert not [salt for salt in dataset.shard.salts if str(salt) in page]


def test_text_from_outside_is_text(run: Path, tmp_path: Path) -> None:
    """A title and a kind with markup; the mark of a formula; a setting. Control: they are in the catalogue."""
    shutil.copytree(run, source := tmp_path / "run")
    frame = pl.read_parquet(source / "catalogue.parquet")
    attack = "<script>alert(1)</script> $x_$"
    renamed = frame.with_columns(
        title=pl.when(pl.col("item_id") == "film-bread").then(pl.lit(attack)).otherwise("title"),
        genres=pl.when(pl.col("genres") == "Space").then(pl.lit("<b>Space</b>")).otherwise("genres"),
    )
    renamed.write_parquet(source / "catalogue.parquet")
    page = render_page(RunReport(library.load(source)))
    assert attack not in page
    assert "<b>Space" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert Page(page).text.count("alert(1)") >= 2


@pytest.mark.parametrize("folder", ["two-tower", "cold-items", "fedmf", "interrupted"])
def test_every_kind_of_run_has_a_page(folder: str) -> None:
    """Of earlier versions, of a federated baseline, which has no items to show, and unfinished."""
    report = RunReport(library.load(Path(__file__).parent / "old" / "runs" / folder))
    page = Page(render_page(report))
    assert ("From a popular item" in page.text) is report.has_items is (folder in ("two-tower", "cold-items"))
    assert "curves" in report.charts


def test_an_exported_run_has_a_page_without_curves(run: Path, tmp_path: Path) -> None:
    library.load(run).export(tmp_path / "out")
    page = Page(render_page(RunReport(library.load(tmp_path / "out"))))
    assert "an exported run" in page.text


def test_a_private_run_shows_what_it_has_spent(run: Path, tmp_path: Path) -> None:
    from tests.support.privacy import planned

    shutil.copytree(run, source := tmp_path / "run")
    card = json.loads((source / "card.json").read_text())
    ledger = planned(rounds=2).with_round()
    (source / "card.json").write_text(json.dumps(card | {"privacy": ledger.as_record()}))
    page = Page(render_page(RunReport(library.load(source))))
    assert f"ε = {ledger.spent.epsilon:.3g} of {ledger.epsilon:g} is spent" in page.text
    assert ledger.relation in page.text


def test_a_missing_package_is_named(run: Path, tmp_path: Path, fedrec: Fedrec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    is_refused(fedrec("report", run), "matplotlib", "fedrec[plots]")
    assert not (tmp_path / "report.html").exists()


def test_candidates_are_drawn_apart_and_nothing_without_figures() -> None:
    validated = {"round": 1, "loss": 2.0, "validation": {"ndcg@10": 0.25}, "bytes_up": 0, "bytes_down": 0}
    candidate = validated | {"round": 2, "loss": None, "candidate": {}}
    drawn = draw_curves([validated, candidate], best=2)
    assert drawn
    assert "with a closed form" in drawn
    assert "kept: 0.2500" in drawn
    assert "with a closed form" not in (draw_curves([validated], best=1) or "")
    assert draw_curves([], best=None) is None
    assert draw_traffic([validated]) is None
    assert "var(--series-1)" in drawn
    assert "#010" not in drawn


def test_the_map_is_the_plane_of_most_variance() -> None:
    """Points of a plane in space: by hand, two axes of variances 4 and 1 and none along the third."""
    u, v = np.array([0.6, 0.8, 0.0]), np.array([-0.8, 0.6, 0.0])
    points = np.array([[2, 1], [2, -1], [-2, 1], [-2, -1]]) @ np.stack([u, v])
    plane, explained = principal_plane(torch.from_numpy(points).float() + 5)
    assert np.abs(plane).round(5).tolist() == [[2, 1]] * 4
    assert plane[0, 0] > 0  # the largest weight of an axis is positive: that of u on the second coordinate
    assert explained == pytest.approx(1.0)
    assert principal_plane(torch.zeros(3, 1))[1] == 0.0


def test_kinds_are_those_of_a_column_that_most_items_share(run: Path) -> None:
    found = map_items(library.load(run).recommender, "fedrec")
    assert (found.column, sorted(found.kinds)) == ("genres", ["Cooking", "Space"])
    by_title = {place.title: found.kinds[place.kind] for place in found.places}
    assert by_title["The bread"] == "Cooking"
    assert by_title["The comet"] == "Space"
    assert all(0 <= place.x <= 1000 and 0 <= place.y <= 1000 for place in found.places)


def test_popular_items_come_first(run: Path) -> None:
    catalogue: Any = library.load(run).recommender.catalogue
    assert popular_rows(catalogue, 3).tolist() == [0, 11, 23]
    counted = catalogue.frame.with_columns(popularity=pl.Series([*range(24)]))
    assert popular_rows(type(catalogue)(counted), 3).tolist() == [23, 22, 21]


def test_the_worth_of_nodes_needs_their_sums(run: Path, toy: Path) -> None:
    with pytest.raises(InputError, match="keeps no sums"):
        write_report(library.load(run), "x.html", Wanted(Dataset.open(toy), nodes=True))
