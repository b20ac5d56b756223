"""`fedrec demo`: the whole job on the generated dataset, shown as it goes."""

from dataclasses import replace
from pathlib import Path

from rich.table import Table

from fedrec import console
from fedrec.baseline_comparison import measure_baselines
from fedrec.data.catalogue import Catalogue
from fedrec.data.errors import InputError
from fedrec.data.prepare import MANIFEST, prepare
from fedrec.data.readers.sources import source_named
from fedrec.data.shard import Shard
from fedrec.data.storage.contents import is_vacant
from fedrec.data.storage.locks import in_use
from fedrec.evaluation import measured, score_users
from fedrec.federation.config import from_flat
from fedrec.federation.training_run import RUN
from fedrec.recsys.card import load_card
from fedrec.recsys.recommender import CARD, Recommender, save_json
from fedrec.serving.engine import Engine
from fedrec.serving.schema import Item, Question
from fedrec.training import train_here

SETTINGS = {"rounds": 120, "clients_per_round": 64, "history": 32, "negatives": 256, "validate_every": 10}
SHOWN_USER = 7
COMPARISON = "comparison.json"
"""The demo's table as data, beside the run's own metrics."""

DEMO = replace(RUN, kind="run of the demo", patterns=(*RUN.patterns, COMPARISON))


def play(data: Path, out: Path) -> None:
    """Prepare, embed, train, compare, recommend. Raises `InputError` where `out` holds something else."""
    _refuse_other(out)
    with in_use(out):
        _refuse_other(out)
        DEMO.clear(out)
        _play(data, out)


def _play(data: Path, out: Path) -> None:
    source = source_named("demo")
    console.status(
        ": films and users generated from a seed (data/synthetic/demo_films.py tells how)", heading="1. Data"
    )
    manifest = prepare(source, data, None, lambda done, total: None, console.warn)
    console.status(
        f"   {manifest.users} users, {manifest.items} films, {manifest.interactions:,} watches in {data / MANIFEST}"
    )
    console.status(": every user is a client; only sums of small adapters cross", heading="2. Training")
    train_here(data, out, from_flat(SETTINGS), resume=False)
    recommender = Recommender.load(out)
    shard = Shard.load(data)
    console.status(": each user's last film, ranked among all films the user has not seen", heading="3. Quality")
    baselines = measure_baselines(data, recommender.encoder.name)
    rows = {name: found["test"]["full"] for name, found in baselines.items()}
    rows["fedrec"] = measured(score_users(recommender.scorer(), shard, "test"))
    save_json(out / COMPARISON, rows)
    console.show(console.metrics_table(f"test, {len(shard)} users", rows))
    console.status(", whose history the server never saw", heading="4. A user")
    _show_user(recommender, shard, SHOWN_USER)
    console.out.print(
        f"\nThe run is in {out}. Next:\n"
        f"  fedrec recommend {out} --query 'a quiet film about the sea'\n"
        f"  fedrec serve {out}        then open http://127.0.0.1:8080",
        soft_wrap=True,
    )


def _refuse_other(out: Path) -> None:
    """Raise `InputError` if `out` holds anything but an earlier run of the demo."""
    named = (out / CARD).is_file() and load_card(out).get("data", {}).get("name") == "demo"
    if not (named or is_vacant(out)):
        raise InputError(f"--out {out} holds something that is no run of the demo; choose another folder")
    DEMO.check(out)


def _show_user(recommender: Recommender, shard: Shard, user: int) -> None:
    catalogue = recommender.catalogue
    history = shard.history(user, "test")
    answer = Engine.from_recommender(recommender).recommend(
        Question(history=[catalogue.ids[row] for row in history], k=10)
    )
    console.show(_history_beside(catalogue, history[-10:].tolist(), answer.items))
    held_out = catalogue.titles[int(shard.held_out([user], "test")[0])]
    console.out.print(f"What the user watched next: {held_out}")


def _history_beside(catalogue: Catalogue, rows: list[int], items: list[Item]) -> Table:
    table = console.table("watched", "genres", "recommended", "genres", title="latest first, and the top 10")
    genres = catalogue.frame["genres"].to_list()
    for row, item in zip(reversed(rows), items, strict=False):
        recommended = int(catalogue.rows([item.item_id])[0])
        table.add_row(catalogue.titles[row], genres[row], item.title, genres[recommended])
    return table
