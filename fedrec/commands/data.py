"""`fedrec data`: list, prepare, import and generate datasets."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fedrec.commands.data_options import (
    ColdShare,
    HeldOutShare,
    ItemCore,
    MaxEvents,
    MinRating,
    Rule,
    Since,
    TestFrom,
    Until,
    UserCore,
    ValidationFrom,
)
from fedrec.commands.data_reports import report_check, report_prepared
from fedrec.commands.options import BadRows, Encoding, EventColumn, Json, Quote, Separator, Strict

app = typer.Typer(no_args_is_help=True, help="Datasets: list them, prepare one, or import your own.")


Popularity = Annotated[
    bool,
    typer.Option(
        "--popularity/--no-popularity",
        help="Count in the catalogue how many users had each item in their training events.",
    ),
]


@app.command("list")
def data_list(as_json: Json = False) -> None:
    """List the datasets that can be prepared by name: size, terms, citation, and where they come from."""
    from fedrec.commands.dataset_list import as_records, show_datasets

    if as_json:
        print(json.dumps(as_records()))
    else:
        show_datasets()


@app.command("prepare")
def data_prepare(
    name: Annotated[str, typer.Argument(help="One of `fedrec data list`.")],
    source: Annotated[
        Path | None,
        typer.Option(
            help="Your copy: a zip, a folder, or one file of it, .gz or parquet too; without it, it is downloaded."
        ),
    ] = None,
    text: Annotated[
        str,
        typer.Option(
            metavar="COLUMN,…", help="Columns that make up the text of an item.", show_default="all that describe it"
        ),
    ] = "",
    split: Rule = "published",
    cold_share: ColdShare = None,
    held_out_share: HeldOutShare = None,
    validation_from: ValidationFrom = None,
    test_from: TestFrom = None,
    min_rating: MinRating = None,
    since: Since = None,
    until: Until = None,
    min_events: Annotated[
        int | None, typer.Option(min=3, help="Leave out users with fewer events.", show_default="3")
    ] = None,
    max_events: MaxEvents = None,
    user_core: UserCore = None,
    item_core: ItemCore = None,
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
        held_out_share=held_out_share,
        validation_from=validation_from,
        test_from=test_from,
        min_rating=min_rating,
        since=since,
        until=until,
        min_events=min_events,
        max_events=max_events,
        user_core=user_core,
        item_core=item_core,
        popularity=popularity,
        strict=strict,
        out=out,
        rebuild=True,
    )
    report_prepared(dataset, as_json)


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
    rating_column: Annotated[str, typer.Option(help="In INTERACTIONS, for --min-rating.")] = "rating",
    min_rating: MinRating = None,
    since: Since = None,
    until: Until = None,
    keep_repeats: Annotated[
        bool, typer.Option("--keep-repeats", help="Keep later events of a user with the same item, too.")
    ] = False,
    min_events: Annotated[int, typer.Option(min=3, help="Leave out users with fewer events.")] = 3,
    max_events: MaxEvents = None,
    user_core: UserCore = 0,
    item_core: ItemCore = 0,
    split: Rule = "leave-one-out",
    cold_share: ColdShare = None,
    held_out_share: HeldOutShare = None,
    validation_from: ValidationFrom = None,
    test_from: TestFrom = None,
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
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; report what would be refused or left out, with examples.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="The prepared folder.", show_default="var/prepared/NAME")] = None,
    as_json: Json = False,
) -> None:
    """Prepare your own tables, as `data prepare` does with published datasets.

    With --check nothing is written; exit status 1 says that something would be refused.
    """
    from fedrec.datasets import check_import, import_dataset

    settings: dict[str, Any] = {
        "name": name,
        "layout": layout,
        "user_column": user_column,
        "item_column": item_column,
        "items_id_column": items_id_column,
        "time_column": time_column,
        "no_times": no_times,
        "text_columns": _names(text_columns),
        "event_column": event_column,
        "keep_events": _names(keep_events),
        "rating_column": rating_column,
        "min_rating": min_rating,
        "since": since,
        "until": until,
        "keep_repeats": keep_repeats,
        "min_events": min_events,
        "max_events": max_events,
        "user_core": user_core or 0,
        "item_core": item_core or 0,
        "split": split,
        "cold_share": cold_share,
        "held_out_share": held_out_share,
        "validation_from": validation_from,
        "test_from": test_from,
        "separator": separator,
        "encoding": encoding,
        "quote": quote,
        "bad_rows": bad_rows,
        "popularity": popularity,
        "salts": salts,
        "strict": strict,
        "out": out,
    }
    if check:
        report_check(check_import(interactions, items, **settings), as_json)
        return
    report_prepared(import_dataset(interactions, items, **settings), as_json)


@app.command("describe")
def data_describe(
    prepared: Annotated[Path, typer.Argument(help="A prepared folder.")],
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the distributions, too.", show_default="no picture")
    ] = None,
    as_json: Json = False,
) -> None:
    """Describe a prepared dataset: counts by split, lengths of histories, popularity, texts and times."""
    from fedrec import console
    from fedrec.data.dataset import Dataset
    from fedrec.describe import description_lines, description_tables, plot_description

    about = Dataset.open(prepared).describe()
    if as_json:
        print(json.dumps(about.as_record()))
    else:
        console.out.print("\n".join(description_lines(about)), soft_wrap=True)
        for shown in description_tables(about):
            console.show(shown)
    if plot:
        plot_description(about, plot)
        console.status(f"{plot} shows the distributions")


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
