"""`fedrec demo`: the whole job on the generated dataset, shown as it goes."""

from dataclasses import replace
from pathlib import Path

from rich.table import Table

from data.catalogue import Catalogue
from data.contents import is_vacant
from data.errors import InputError
from data.locks import in_use
from data.prepare import MANIFEST, prepare
from data.shard import Shard
from data.sources import source_named
from federation.config import from_knobs
from federation.train import RUN
from fedrec import view
from fedrec.comparison import measure_baselines
from fedrec.evaluate import measured, score_users
from fedrec.train import train_here
from recsys.card import load_card
from recsys.recommender import CARD, Recommender, save_json
from serving.engine import Engine
from serving.schema import Item, Question

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
    view.say(": films and users generated from a seed (data/demo.py tells how)", heading="1. Data")
    manifest = prepare(source, data, None, lambda done, total: None, view.warn)
    view.say(
        f"   {manifest.users} users, {manifest.items} films, {manifest.interactions:,} watches in {data / MANIFEST}"
    )
    view.say(": every user is a client; only sums of small adapters cross", heading="2. Training")
    train_here(data, out, from_knobs(SETTINGS), resume=False)
    recommender = Recommender.load(out)
    shard = Shard.load(data)
    view.say(": each user's last film, ranked among all films the user has not seen", heading="3. Quality")
    baselines = measure_baselines(data, recommender.encoder.name)
    rows = {name: found["test"]["full"] for name, found in baselines.items()}
    rows["fedrec"] = measured(score_users(recommender.scorer(), shard, "test"))
    save_json(out / COMPARISON, rows)
    view.show(view.metrics_table(f"test, {len(shard)} users", rows))
    view.say(", whose history the server never saw", heading="4. A user")
    _show_user(recommender, shard, SHOWN_USER)
    view.out.print(
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
    answer = Engine.of(recommender).recommend(Question(history=[catalogue.ids[row] for row in history], k=10))
    view.show(_history_beside(catalogue, history[-10:].tolist(), answer.items))
    held_out = catalogue.titles[int(shard.held_out([user], "test")[0])]
    view.out.print(f"What the user watched next: {held_out}")


def _history_beside(catalogue: Catalogue, rows: list[int], items: list[Item]) -> Table:
    table = view.table("watched", "genres", "recommended", "genres", title="latest first, and the top 10")
    genres = catalogue.frame["genres"].to_list()
    for row, item in zip(reversed(rows), items, strict=False):
        recommended = int(catalogue.rows([item.item_id])[0])
        table.add_row(catalogue.titles[row], genres[row], item.title, genres[recommended])
    return table
