"""`fedrec data`: what datasets there are, and how they, your own or made-up ones are prepared."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrec.commands.options import PREPARED, Json

if TYPE_CHECKING:
    from data.prepare import Manifest

app = typer.Typer(no_args_is_help=True, help="Datasets: what there is, and how to prepare one, or your own.")


class Split(StrEnum):
    """What is held out to test on."""

    leave_one_out = "leave-one-out"
    cold_items = "cold-items"


Rule = Annotated[Split, typer.Option("--split", help="Hold out each user's last items, or some items altogether.")]
ColdShare = Annotated[
    float | None, typer.Option(help="Of the items, with --split cold-items.", show_default="0.1", min=0, max=1)
]


@app.command("list")
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


@app.command("prepare")
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


@app.command("import")
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
    from data.names import plain_name
    from data.prepare import prepare_tables
    from data.split import LEAVE_ONE_OUT, split_of
    from data.tables import Tables

    out = out or PREPARED / plain_name(name, "--name")
    tables = Tables(interactions, items, user_column, item_column, time_column, _names(text_columns))
    _prepared(prepare_tables(tables, out, name, split_of(split.value, cold_share, LEAVE_ONE_OUT)), out, as_json)


@app.command("synthesise")
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
