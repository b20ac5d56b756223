"""`fedrec data`: list, prepare, import and generate datasets."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fedrec.commands.options import BadRows, Encoding, EventColumn, Json, Quote, Separator, Strict

if TYPE_CHECKING:
    from fedrec.data.dataset import Dataset

app = typer.Typer(no_args_is_help=True, help="Datasets: list them, prepare one, or import your own.")


Rule = Annotated[
    Literal["leave-one-out", "cold-items"],
    typer.Option("--split", help="Hold out each user's last items, or some items altogether."),
]
ColdShare = Annotated[
    float | None,
    typer.Option(help="Share of the items that is cold, with --split cold-items.", show_default="0.1", min=0, max=1),
]
Popularity = Annotated[
    bool,
    typer.Option(
        "--popularity/--no-popularity",
        help="Count in the catalogue how many users had each item in their training events.",
    ),
]


@app.command("list")
def data_list(as_json: Json = False) -> None:
    """List the datasets that can be prepared by name."""

    from fedrec import console
    from fedrec.data.readers.sources import SOURCES

    if as_json:
        print(json.dumps([{"name": s.name, "about": s.about, "url": s.url, "md5": s.md5} for s in SOURCES.values()]))
        return
    table = console.table("name", "what", "from")
    for source in SOURCES.values():
        table.add_row(
            source.name, source.about, source.url or ("your copy, by --source" if source.by_hand else "this package")
        )
    console.show(table)


@app.command("prepare")
def data_prepare(
    name: Annotated[str, typer.Argument(help="One of `fedrec data list`.")],
    source: Annotated[Path | None, typer.Option(help="Your zip or folder of it; without it, it is downloaded.")] = None,
    text: Annotated[
        str,
        typer.Option(
            metavar="COLUMN,…", help="Columns that make up the text of an item.", show_default="all that describe it"
        ),
    ] = "",
    split: Rule = "leave-one-out",
    cold_share: ColdShare = None,
    out: Annotated[
        Path | None, typer.Option(help="The prepared folder.", show_default="var/prepared/NAME[-cold-items]")
    ] = None,
    popularity: Popularity = True,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Prepare a dataset: the public catalogue, and the histories in the order of time."""
    from fedrec.datasets import load_dataset

    dataset = load_dataset(
        name,
        source,
        text=_names(text),
        split=split,
        cold_share=cold_share,
        popularity=popularity,
        strict=strict,
        out=out,
        rebuild=True,
    )
    _report(dataset, as_json)


@app.command("import")
def data_import(
    interactions: Annotated[
        Path, typer.Argument(help="A CSV, JSON lines or parquet file: user, item and time of each event.")
    ],
    name: Annotated[str, typer.Option(help="The name of the dataset.", show_default=False)],
    items: Annotated[Path | None, typer.Option(help="A file of the same formats that describes the items.")] = None,
    layout: Annotated[
        Literal["recbole", "rectools", "lenskit"] | None,
        typer.Option(help="INTERACTIONS is a dataset of this library, with its names of columns.", show_default="none"),
    ] = None,
    user_column: Annotated[str, typer.Option(help="In INTERACTIONS.")] = "user_id",
    item_column: Annotated[str, typer.Option(help="In INTERACTIONS, and in the items.")] = "item_id",
    items_id_column: Annotated[
        str | None, typer.Option(help="In the items, if it has another name there.", show_default="--item-column")
    ] = None,
    time_column: Annotated[str, typer.Option(help="Numbers that grow with time, or ISO dates.")] = "timestamp",
    no_times: Annotated[
        bool, typer.Option("--no-times", help="There are no times: the rows are in the order of time.")
    ] = False,
    text_columns: Annotated[
        str, typer.Option(metavar="TITLE,…", help="Of the items, the title first.", show_default="all but the id")
    ] = "",
    event_column: EventColumn = None,
    keep_events: Annotated[
        str, typer.Option(metavar="KIND,…", help="The kinds of events to keep.", show_default="all")
    ] = "",
    keep_repeats: Annotated[
        bool, typer.Option("--keep-repeats", help="Keep later events of a user with the same item, too.")
    ] = False,
    min_events: Annotated[int, typer.Option(min=3, help="Leave out users with fewer events.")] = 3,
    max_events: Annotated[
        int | None, typer.Option(help="Leave out users with more events, such as bots.", show_default="any number")
    ] = None,
    split: Rule = "leave-one-out",
    cold_share: ColdShare = None,
    separator: Separator = None,
    encoding: Encoding = "utf-8",
    quote: Quote = '"',
    bad_rows: BadRows = 0.01,
    popularity: Popularity = True,
    salts: Annotated[
        Literal["random", "by-id"],
        typer.Option(
            "--salt",
            help="Seeds of the users' draws. random: kept if NAME is imported again; by-id: derived from their ids, so "
            "that another import gives the same model, but who guesses ids knows their users' tickets.",
        ),
    ] = "random",
    strict: Strict = False,
    out: Annotated[Path | None, typer.Option(help="The prepared folder.", show_default="var/prepared/NAME")] = None,
    as_json: Json = False,
) -> None:
    """Prepare your own tables, as `data prepare` does with published datasets."""
    from fedrec.datasets import import_dataset

    dataset = import_dataset(
        interactions,
        items,
        name=name,
        layout=layout,
        user_column=user_column,
        item_column=item_column,
        items_id_column=items_id_column,
        time_column=time_column,
        no_times=no_times,
        text_columns=_names(text_columns),
        event_column=event_column,
        keep_events=_names(keep_events),
        keep_repeats=keep_repeats,
        min_events=min_events,
        max_events=max_events,
        split=split,
        cold_share=cold_share,
        separator=separator,
        encoding=encoding,
        quote=quote,
        bad_rows=bad_rows,
        popularity=popularity,
        salts=salts,
        strict=strict,
        out=out,
    )
    _report(dataset, as_json)


@app.command("synthesise")
def data_synthesise(
    out: Annotated[Path, typer.Option(help="A new or empty folder for the two tables.", show_default=False)],
    users: Annotated[int, typer.Option(min=1, help="Number of users.", show_default=False)],
    items: Annotated[int, typer.Option(min=1, help="Number of items.", show_default=False)],
    interactions: Annotated[
        int, typer.Option(min=1, help="Number of interactions, approximately.", show_default=False)
    ],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same tables.")] = 0,
    as_json: Json = False,
) -> None:
    """Generate tables for `data import`, to measure time and memory with."""
    from fedrec import console
    from fedrec.data.synthetic.random_tables import INTERACTIONS, ITEMS, SyntheticConfig, synthesise

    with console.counting("synthesising") as progress:
        made = synthesise(SyntheticConfig(users, items, interactions, seed), out, progress)
    if as_json:
        print(json.dumps({"users": users, "items": items, "interactions": made, "out": str(out)}))
        return
    console.out.print(
        f"{out}: {users:,} users, {items:,} items, {made:,} interactions. Next:\n"
        f"  fedrec data import {out / INTERACTIONS} --items {out / ITEMS} --name NAME",
        soft_wrap=True,
    )


def _names(columns: str) -> tuple[str, ...]:
    return tuple(column.strip() for column in columns.split(",") if column.strip())


def _report(dataset: "Dataset", as_json: bool) -> None:
    """Print what was prepared: the manifest and the folder, or their figures in words."""
    from fedrec import console

    manifest, out = dataset.manifest, dataset.folder
    if as_json:
        print(json.dumps({**manifest, "out": str(out)}))
        return
    cold = (
        f"cold: {manifest['cold_items']:,} items; {manifest['training_only_users']:,} users train and are not ranked\n"
    )
    console.out.print(
        f"{out}: {manifest['users']:,} users, {manifest['items']:,} items, {manifest['interactions']:,} interactions\n"
        f"{cold if manifest['cold_items'] else ''}split: {manifest['split']}",
        soft_wrap=True,
    )
