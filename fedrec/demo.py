"""`fedrec demo`: the whole job on the generated dataset, shown as it goes."""

from dataclasses import replace
from pathlib import Path

from rich.markup import escape
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
from fedrec.evaluate import measured, score_users
from fedrec.train import train_here
from recsys import baselines
from recsys.embed import embed, resolve
from recsys.rank import Scorer
from recsys.recommender import CARD, Recommender, load_card, save_json
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
    view.say("[bold]1. Data[/bold]: films and users generated from a seed (data/demo.py tells how)")
    manifest = prepare(source, data, None, lambda done, total: None, view.warn)
    view.say(
        f"   {manifest.users} users, {manifest.items} films, {manifest.interactions:,} watches in {data / MANIFEST}"
    )
    view.say("[bold]2. Training[/bold]: every user is a client; only sums of small adapters cross")
    train_here(data, out, from_knobs(SETTINGS), resume=False)
    recommender = Recommender.load(out)
    shard = Shard.load(data)
    view.say("[bold]3. Quality[/bold]: each user's last film, ranked among all films the user has not seen")
    rows = {
        name: measured(score_users(scorer, shard, "test")) for name, scorer in _rivals(recommender, shard, data).items()
    }
    save_json(out / COMPARISON, rows)
    view.out.print(view.metrics_table(f"test, {len(shard)} users", rows))
    view.say("[bold]4. A user[/bold], whose history the server never saw")
    _show_user(recommender, shard, SHOWN_USER)
    view.out.print(
        f"\nThe run is in {out}. Next:\n"
        f"  fedrec recommend {out} --query 'a quiet film about the sea'\n"
        f"  fedrec serve {out}        then open http://127.0.0.1:8080",
        soft_wrap=True,
        markup=False,
    )


def _refuse_other(out: Path) -> None:
    """Raise `InputError` if `out` holds anything but an earlier run of the demo."""
    named = (out / CARD).is_file() and load_card(out).get("data", {}).get("name") == "demo"
    if not (named or is_vacant(out)):
        raise InputError(f"--out {out} holds something that is no run of the demo; choose another folder")
    DEMO.check(out)


def _rivals(recommender: Recommender, shard: Shard, data: Path) -> dict[str, Scorer]:
    items = len(recommender.catalogue)
    embeddings = embed(Catalogue.load(data), resolve(recommender.encoder.name), data).matrix
    return {
        "random": baselines.random_scores(items, seed=0),
        "popularity": baselines.popularity(shard, items, "test"),
        "text neighbours": baselines.text_neighbours(embeddings),
        "fedrec": recommender.scorer(),
    }


def _show_user(recommender: Recommender, shard: Shard, user: int) -> None:
    catalogue = recommender.catalogue
    history = shard.history(user, "test")
    answer = Engine.of(recommender).recommend(Question(history=[catalogue.ids[row] for row in history], k=10))
    view.out.print(_history_beside(catalogue, history[-10:].tolist(), answer.items))
    held_out = catalogue.titles[int(shard.held_out([user], "test")[0])]
    view.out.print(f"What the user watched next: {held_out}")


def _history_beside(catalogue: Catalogue, rows: list[int], items: list[Item]) -> Table:
    table = Table(title="latest first, and the top 10", title_justify="left")
    for name in ("watched", "genres", "recommended", "genres"):
        table.add_column(name, no_wrap=True)
    genres = catalogue.frame["genres"].to_list()
    for row, item in zip(reversed(rows), items, strict=False):
        recommended = int(catalogue.rows([item.item_id])[0])
        table.add_row(*map(escape, (catalogue.titles[row], genres[row], item.title, genres[recommended])))
    return table
