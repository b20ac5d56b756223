"""fedrec: one command with sub-commands. Each gathers what it was told and calls the room that does the work."""

import json
import os
import socket
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from click import UsageError

from data.errors import InputError

if TYPE_CHECKING:
    from data.prepare import Manifest
    from serving.schema import Question

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Federated recommendations: histories stay home, small adapters travel, an endpoint answers.",
)
data_app = typer.Typer(no_args_is_help=True, help="Datasets: what there is, and how to prepare one, or your own.")
app.add_typer(data_app, name="data")
bench_app = typer.Typer(no_args_is_help=True, help="Measure this machine: the claims of speed and size, as commands.")
app.add_typer(bench_app, name="bench")

PREPARED = Path("var/prepared")
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON on stdout, for programs.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, as `fedrec train` writes it.")]
Data = Annotated[
    Path | None, typer.Option(help="The prepared folder.", show_default="var/prepared/, the name in the card")
]


class Protocol(StrEnum):
    """Against what the held-out item is ranked."""

    full = "full"
    sampled = "sampled-99"
    cold = "cold"

    @property
    def against(self) -> str:
        """The protocol in words."""
        return {
            Protocol.full: "against the full catalogue",
            Protocol.sampled: "against 99 sampled items (to compare with papers only)",
            Protocol.cold: "against the cold items alone",
        }[self]


class Split(StrEnum):
    """What is held out to test on."""

    leave_one_out = "leave-one-out"
    cold_items = "cold-items"


Rule = Annotated[Split, typer.Option("--split", help="Hold out each user's last items, or some items altogether.")]
ColdShare = Annotated[
    float | None, typer.Option(help="Of the items, with --split cold-items.", show_default="0.1", min=0, max=1)
]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the run goes; an earlier demo there is replaced.")] = Path(
        "runs/demo"
    ),
) -> None:
    """The whole job on generated data: prepare, embed, train federated, compare, recommend."""
    from fedrec.demo import play

    play(PREPARED / "demo", out)


@data_app.command("list")
def data_list(as_json: Json = False) -> None:
    """The datasets that can be prepared by name."""
    from rich.table import Table

    from data.sources import SOURCES
    from fedrec import view

    if as_json:
        print(json.dumps([{"name": s.name, "about": s.about, "url": s.url, "md5": s.md5} for s in SOURCES.values()]))
        return
    table = Table("name", "what", "from")
    for source in SOURCES.values():
        table.add_row(
            source.name, source.about, source.url or ("your copy, by --source" if source.by_hand else "this package")
        )
    view.out.print(table)


@data_app.command("prepare")
def data_prepare(
    name: Annotated[str, typer.Argument(help="One of `fedrec data list`.")],
    source: Annotated[Path | None, typer.Option(help="A zip or folder you have; else it is downloaded.")] = None,
    text: Annotated[
        str,
        typer.Option(metavar="COLUMN,…", help="What of an item is read.", show_default="all that the dataset tells"),
    ] = "",
    split: Rule = Split.leave_one_out,
    cold_share: ColdShare = None,
    out: Annotated[
        Path | None, typer.Option(help="The prepared folder.", show_default="var/prepared/NAME[-cold-items]")
    ] = None,
    as_json: Json = False,
) -> None:
    """A dataset into a prepared folder: the public catalogue, and the histories in time order."""
    from dataclasses import replace

    from data.prepare import prepare
    from data.sources import source_named
    from data.split import split_of
    from fedrec import view

    asked = source_named(name)
    asked = replace(asked, split=split_of(split.value, cold_share, asked.split), texts=_names(text))
    out = out or PREPARED / f"{name}{asked.split.suffix}"
    with view.counting(f"fetching {name}", download=True) as progress:
        manifest = prepare(asked, out, source, progress, view.warn)
    _prepared(manifest, out, as_json)


@data_app.command("import")
def data_import(
    interactions: Annotated[Path, typer.Argument(help="A CSV or parquet file: who had what, and when.")],
    name: Annotated[str, typer.Option(help="What to call the dataset.", show_default=False)],
    items: Annotated[Path | None, typer.Option(help="A CSV or parquet file that describes the items.")] = None,
    user_column: Annotated[str, typer.Option(help="In INTERACTIONS.")] = "user_id",
    item_column: Annotated[str, typer.Option(help="In both files.")] = "item_id",
    time_column: Annotated[str, typer.Option(help="Numbers that grow with time, or ISO dates.")] = "timestamp",
    text_columns: Annotated[
        str, typer.Option(metavar="TITLE,…", help="Of the items, the title first.", show_default="all but the id")
    ] = "",
    split: Rule = Split.leave_one_out,
    cold_share: ColdShare = None,
    out: Annotated[Path | None, typer.Option(help="The prepared folder.", show_default="var/prepared/NAME")] = None,
    as_json: Json = False,
) -> None:
    """Your own tables into a prepared folder, as `data prepare` does with published ones."""
    from data.prepare import prepare_tables
    from data.split import LEAVE_ONE_OUT, split_of
    from data.tables import Tables

    out = out or PREPARED / name
    tables = Tables(interactions, items, user_column, item_column, time_column, _names(text_columns))
    _prepared(prepare_tables(tables, out, name, split_of(split.value, cold_share, LEAVE_ONE_OUT)), out, as_json)


@data_app.command("synthesise")
def data_synthesise(
    out: Annotated[Path, typer.Option(help="A new or empty folder for the two tables.", show_default=False)],
    users: Annotated[int, typer.Option(min=1, help="How many.", show_default=False)],
    items: Annotated[int, typer.Option(min=1, help="How many.", show_default=False)],
    interactions: Annotated[int, typer.Option(min=1, help="About how many.", show_default=False)],
    seed: Annotated[int, typer.Option(min=0, help="The same one gives the same tables.")] = 0,
    as_json: Json = False,
) -> None:
    """Made-up tables for `data import`, to measure time and memory with."""
    from data.synthetic import INTERACTIONS, ITEMS, SyntheticConfig, synthesise
    from fedrec import view

    with view.counting("synthesising") as progress:
        made = synthesise(SyntheticConfig(users, items, interactions, seed), out, progress)
    if as_json:
        print(json.dumps({"users": users, "items": items, "interactions": made, "out": str(out)}))
        return
    view.out.print(
        f"{out}: {users:,} users, {items:,} items, {made:,} interactions. Next:\n"
        f"  fedrec data import {out / INTERACTIONS} --items {out / ITEMS} --name NAME",
        soft_wrap=True,
        markup=False,
    )


def _names(columns: str) -> tuple[str, ...]:
    return tuple(column.strip() for column in columns.split(",") if column.strip())


def _told_of_cold(manifest: "Manifest") -> str:
    if not manifest.cold_items:
        return ""
    return f"cold: {manifest.cold_items:,} items; {manifest.training_only_users:,} users train and are not ranked\n"


def _prepared(manifest: "Manifest", out: Path, as_json: bool) -> None:
    from dataclasses import asdict

    from fedrec import view

    if as_json:
        print(json.dumps(asdict(manifest) | {"out": str(out)}))
        return
    view.out.print(
        f"{out}: {manifest.users:,} users, {manifest.items:,} items, {manifest.interactions:,} interactions\n"
        f"{_told_of_cold(manifest)}split: {manifest.split}",
        soft_wrap=True,
        markup=False,
    )


@app.command()
def train(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A prepared folder.")],
    out: Annotated[Path, typer.Option(help="The run's folder.", show_default=False)],
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting, over the file's. `mode=central` pools the data."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="Begin from what this run learned, on these or other items.", show_default="scratch"
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    as_json: Json = False,
) -> None:
    """Train federated: in this process, over the same loop and records that a network would carry."""
    from fedrec import view
    from fedrec.train import read_settings, train_here

    metrics = train_here(data, out, read_settings(config, settings or []), resume, start)
    if as_json:
        print(json.dumps(metrics | {"run": str(out)}))
        return
    for protocol in metrics["test"]:
        rows = {split: metrics[split][protocol] for split in metrics}
        view.out.print(view.metrics_table(f"held-out items {Protocol(protocol).against}", rows))
    told = f"Next:\n  fedrec recommend {out} --query 'space opera'\n  fedrec serve {out}"
    if Protocol.sampled in metrics["test"]:
        told = "A peer to compare with: its users' private parts are gone, and there is nothing to serve."
    view.out.print(f"Wrote {out}. {told}", soft_wrap=True, markup=False)


@app.command()
def evaluate(
    run: Run,
    data: Data = None,
    protocol: Annotated[
        Protocol, typer.Option(help="sampled-99 only compares with papers; cold needs --split cold-items.")
    ] = Protocol.full,
    ranks: Annotated[
        Path | None, typer.Option(help="Also write each user's test rank, without ids, to this .npy file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Rank every held-out item with a trained run: NDCG, Recall, HR, MRR and catalogue coverage."""
    from fedrec import view
    from fedrec.evaluate import evaluate_run

    found = evaluate_run(run, data, PREPARED, protocol.value, ranks)
    if as_json:
        print(json.dumps(found))
        return
    view.out.print(view.metrics_table(f"held-out items {protocol.against}", {s: found[s][protocol] for s in found}))


@app.command()
def personalise(
    run: Run,
    data: Data = None,
    alone: Annotated[bool, typer.Option("--alone", help="From scratch instead: what a client learns alone.")] = False,
    steps: Annotated[str, typer.Option(metavar="N,…", help="Numbers of local steps to try; 0 always is.")] = "5,10,20",
    rates: Annotated[str, typer.Option(metavar="X,…", help="Lengths of a step to try.")] = "0.01,0.03",
    part: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,…", help="Parameters that are the client's own; again to try others."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Each client fine-tunes a copy for itself: settings chosen on validation, then the test ranked once."""
    from fedrec import view
    from fedrec.personal import Choices, personalise_run

    choices = Choices.read(steps, rates, part or ["item,user"])
    found = personalise_run(run, data, PREPARED, alone, choices)
    if as_json:
        print(json.dumps(found))
        return
    rows = {", ".join(f"{k} {t[k]}" for k in ("parts", "rate", "steps")): t["validation"] for t in found["trials"]}
    view.out.print(view.metrics_table("validation, every trial", rows))
    view.out.print(view.metrics_table(f"test, {'alone' if alone else 'personal'}", {"test": found["test"]}))


@app.command()
def recommend(
    run: Run,
    history: Annotated[str | None, typer.Option(metavar="ID,ID,…", help="Item ids, oldest first.")] = None,
    query: Annotated[str | None, typer.Option(metavar="TEXT", help="Free text.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many.")] = 10,
    as_json: Json = False,
) -> None:
    """The top k for a history or a text, with titles."""
    from fedrec import view
    from recsys.recommender import Recommender
    from serving.engine import Engine, Refused

    question = _question(history, query, k)
    try:
        answer = Engine(Recommender.load(run)).recommend(question)
    except Refused as refusal:
        raise InputError(f"--{refusal.where}: {refusal.detail}; ids stand in {run}/catalogue.parquet") from refusal
    if as_json:
        print(answer.model_dump_json())
        return
    if answer.unknown_ids:
        view.warn(f"not in the catalogue, skipped: {', '.join(answer.unknown_ids)}")
    view.out.print(view.items_table(f"top {k} of {answer.model_version}", answer.items))


def _question(history: str | None, query: str | None, k: int) -> "Question":
    """What the command line asks, under the same limits as over HTTP. Raises `InputError`."""
    from pydantic import ValidationError

    from serving.schema import Question

    if (history is None) == (query is None):
        raise InputError("give exactly one of --history and --query")
    if not (history if query is None else query).strip(" ,"):  # type: ignore[union-attr]
        raise InputError("--history and --query may not be empty")
    ids = [item_id.strip() for item_id in history.split(",") if item_id.strip()] if history is not None else None
    try:
        return Question(history=ids, query=query, k=k)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"--{first['loc'][0]}: {first['msg'].lower()}; shorten it") from error


@app.command()
def serve(
    run: Run,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8080,
) -> None:
    """Answer over HTTP: POST /v1/recommend, GET /v1/items/{id}/similar, /healthz, /readyz, /docs."""
    with _listen(host, port) as listener:
        import uvicorn

        from fedrec import view
        from recsys.recommender import Recommender
        from serving.app import create_app

        recommender = Recommender.load(run)
        shown = f"[{host}]" if ":" in host else host
        view.say(f"{recommender.version} at http://{shown}:{listener.getsockname()[1]} (API at /docs, Ctrl-C stops)")
        config = uvicorn.Config(create_app(lambda: recommender), log_level="warning", access_log=False)
        uvicorn.Server(config).run(sockets=[listener])


class Part(StrEnum):
    """What `bench engine` measures."""

    cohort = "cohort"
    scale = "scale"
    nodes = "nodes"


@bench_app.command("engine")
def bench_engine(
    part: Annotated[list[Part] | None, typer.Option(help="Only this part.", show_default="all")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting.")] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Show where the time of a block goes instead.")] = False,
    as_json: Json = False,
) -> None:
    """The cohort engine against central training, a loop over clients, and Flower's simulation; and at scale."""
    from federation.config import RunConfig
    from fedrec.bench import engine, report
    from fedrec.train import read_settings

    config = read_settings(None, settings or []) or RunConfig()
    if profile:
        rows = engine.profile(config)
        print(json.dumps(rows)) if as_json else report.show_profile(rows)
        return
    found = report.run(config, [p.value for p in part or Part], " ".join(["fedrec", *sys.argv[1:]]))
    print(json.dumps(found, indent=2)) if as_json else report.show(found)


@app.command("reproduce")
def reproduce_command(
    name: Annotated[str, typer.Argument(help="A benchmark: benchmarks/NAME.toml.")],
    source: Annotated[Path | None, typer.Option(help="A zip or folder you have; else it is downloaded.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where its parts are kept.", show_default="runs/reproduce/NAME")
    ] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="Only this part or family of parts.", show_default="all")
    ] = None,
    preset: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A preset of your own, to be called NAME.")
    ] = None,
    results: Annotated[Path, typer.Option(help="Where NAME.json is written.")] = Path("benchmarks/results"),
    as_json: Json = False,
) -> None:
    """A benchmark from the raw data to its results. What is made is kept: the same command goes on after Ctrl-C."""
    from fedrec import view
    from fedrec.reproduce.benchmark import Benchmark, reproduce
    from fedrec.reproduce.collect import rows
    from fedrec.reproduce.preset import read_preset

    asked, base = read_preset(name, preset)
    benchmark = Benchmark(name, asked, base, out or Path("runs/reproduce") / name, source)
    found = reproduce(benchmark, part or [], results)
    if as_json:
        print(json.dumps(found))
        return
    view.out.print(view.metrics_table(f"{name}, test, full catalogue", rows(found)))
    view.out.print(f"Wrote {results / name}.json", soft_wrap=True, markup=False)


@app.command()
def results(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; status 1 where something differs.")] = False,
    root: Annotated[Path, typer.Option(help="A clone of the repository.")] = Path(),
) -> None:
    """Make docs/results.md, its plots and README's results from benchmarks/results."""
    from fedrec import view
    from fedrec.results.write import differing, write

    paths = differing(root) if check else write(root)
    for path in paths:
        view.out.print(
            f"{path} {'differs; run `fedrec results`' if check else 'written'}", soft_wrap=True, markup=False
        )
    raise typer.Exit(1 if check and paths else 0)


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before anything else, so that one in use is known at once."""
    listener = None
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        if listener:
            listener.close()
        raise InputError(f"--host {host} --port {port} cannot be used ({error.strerror}); choose another") from error
    return listener


def main() -> None:
    """The console script: a wrong input is one line on stderr and status 2."""
    try:
        sys.exit(app(prog_name="fedrec", standalone_mode=False))
    except InputError as error:
        print(f"fedrec: {error}", file=sys.stderr)
        sys.exit(2)
    except UsageError as error:  # its message is empty where nothing was given and the help was shown
        message = " ".join(error.format_message().split()).rstrip(".")
        command = error.ctx.command_path if error.ctx else "fedrec"
        if message:
            print(f"fedrec: {message}; see `{command} --help`", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        print(
            f"fedrec:{place} {error.strerror or error}; free the space or mend the rights, then try again",
            file=sys.stderr,
        )
        sys.exit(1)
