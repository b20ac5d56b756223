"""`fedrec demo`: the whole job on the generated dataset, shown as it goes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from fedrec import console
from fedrec.baselines import ItemKNN, ItemKNNWithRecency, Popularity, TextNeighbours, measure_all
from fedrec.data.catalogue import Catalogue
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.manifest import MANIFEST
from fedrec.data.storage.contents import is_vacant
from fedrec.data.storage.json_file import save_json
from fedrec.data.storage.locks import in_use
from fedrec.datasets import load_dataset
from fedrec.federation.training_run import RUN
from fedrec.recsys.card import load_card
from fedrec.recsys.evaluation.evaluate import rank_held_out, ranking_metrics
from fedrec.recsys.model.scoring import Scorer
from fedrec.recsys.recommender import CARD
from fedrec.run import Run
from fedrec.serving.schema import Item
from fedrec.training import train

SETTINGS: dict[str, Any] = {
    "rounds": 60,
    "clients_per_round": 64,
    "history": 32,
    "negatives": 256,
    "validate_every": 10,
}
SHOWN_USER = 7
BASELINES = (Popularity(), TextNeighbours(), ItemKNN(), ItemKNNWithRecency())
"""What the demo is compared with: the last is the best of all baselines on its data."""

COMPARISON = "comparison.json"
"""The demo's table as data, beside the run's own metrics."""

DEMO = replace(RUN, kind="run of the demo", patterns=(*RUN.patterns, COMPARISON))


def play(out: Path) -> None:
    """Prepare, embed, train, compare, recommend. Raises `InputError` if `out` holds something else."""
    _refuse_other(out)
    with in_use(out):
        _refuse_other(out)
        DEMO.clear(out)
        _play(out)


def _play(out: Path) -> None:
    console.status(": films and users generated from a seed (fedrec/data/synthetic/demo_films.py)", heading="1. Data")
    dataset = load_dataset("demo", rebuild=True)
    manifest = dataset.manifest
    console.status(
        f"   {manifest['users']} users, {manifest['items']} films, {manifest['interactions']:,} watches in "
        f"{dataset.folder / MANIFEST}"
    )
    console.status(": every user is a client; only sums over users cross", heading="2. Training")
    console.status(
        f"   one half, two towers, reads texts and learns in {SETTINGS['rounds']} rounds; the other, a closed form, is "
        "solved from one\n   exchange of sums of what follows what; validation chooses how much it counts"
    )
    run = train(dataset, out=out, **SETTINGS)
    console.status(": each user's last film, ranked among all films the user has not seen", heading="3. Quality")
    baselines = measure_all(dataset, BASELINES)
    rows = {name: found["test"]["full"] for name, found in baselines.items()}
    rows |= {name: ranking_metrics(rank_held_out(score, dataset, "full", "test")) for name, score in _halves(run)}
    rows["fedrec: both halves"] = run.evaluate(dataset)
    save_json(out / COMPARISON, rows)
    console.show(console.metrics_table(f"test, {manifest['users']} users", rows))
    console.status(", whose history the server never saw", heading="4. A user")
    _show_user(run, dataset, SHOWN_USER)
    console.out.print(
        f"\nThe run is in {out}. Next:\n"
        f"  fedrec recommend {out} --query 'a quiet film about the sea'\n"
        f"  fedrec serve {out}        then open http://127.0.0.1:8080",
        soft_wrap=True,
    )


def _halves(run: Run) -> Iterator[tuple[str, Scorer]]:
    """Iterate over the scorers of each half of a hybrid, with their names: without the bound, which is of both."""
    whole = replace(run.recommender, bound=None)
    assert whole.closed_form, "the demo trains a hybrid"
    yield "fedrec: towers alone", replace(whole, closed_form=None).scorer()
    solved = replace(whole.closed_form, fusion=replace(whole.closed_form.fusion, share=1.0))
    yield "fedrec: closed form alone", replace(whole, closed_form=solved).scorer()


def _refuse_other(out: Path) -> None:
    """Raise `InputError` if `out` holds anything but an earlier run of the demo."""
    named = (out / CARD).is_file() and load_card(out).get("data", {}).get("name") == "demo"
    if not (named or is_vacant(out)):
        raise InputError(f"`out` {out} holds something that is no run of the demo; choose another folder")
    DEMO.check(out)


def _show_user(run: Run, dataset: Dataset, user: int) -> None:
    catalogue, history = dataset.catalogue, dataset.shard.history(user, "test")
    answer = run.answer(history=[catalogue.ids[row] for row in history], k=10)
    console.show(_history_beside(catalogue, history[-10:].tolist(), answer.items))
    held_out = catalogue.titles[int(dataset.shard.held_out([user], "test")[0])]
    console.out.print(f"What the user watched next: {held_out}")


def _history_beside(catalogue: Catalogue, rows: list[int], items: list[Item]) -> Table:
    table = console.table("watched", "genres", "recommended", "genres", title="latest first, and the top 10")
    genres = catalogue.frame["genres"].to_list()
    for row, item in zip(reversed(rows), items, strict=False):
        recommended = int(catalogue.rows([item.item_id])[0])
        table.add_row(catalogue.titles[row], genres[row], item.title, genres[recommended])
    return table
