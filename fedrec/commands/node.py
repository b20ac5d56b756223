"""`fedrec node`: the folders of a federation's nodes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fedrec.commands import node_protection
from fedrec.commands.node_protection import Policy
from fedrec.commands.options import BadRows, Encoding, EventColumn, Json, Quote, RunFolder, Separator, Strict, Users
from fedrec.data.errors import InputError

if TYPE_CHECKING:
    import polars as pl

    from fedrec.data.partition import UserPartition
    from fedrec.data.readers.lines import TextFormat

EVEN = 1_000_000
"""The largest concentration: the shares are then even, up to a thousandth."""

app = typer.Typer(
    no_args_is_help=True, help="A federation's folders: the server's public one, and each node's private one."
)
app.add_typer(node_protection.app)


@app.command("split")
def node_split(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A prepared folder.")],
    out: Annotated[Path, typer.Option(help="A new or empty folder for all of them.", show_default=False)],
    nodes: Annotated[int | None, typer.Option(min=1, help="Number of nodes that share the users.")] = None,
    dirichlet: Annotated[
        float | None,
        typer.Option(help="Concentration of uneven shares: the smaller, the more uneven.", show_default="even shares"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the uneven shares.")] = 0,
    by: Annotated[
        Path | None,
        typer.Option(
            metavar="USERS", help="Instead of --nodes: a CSV, JSON lines or parquet file that describes the users."
        ),
    ] = None,
    column: Annotated[str | None, typer.Option(help="In USERS: a node for each of its values.")] = None,
    user_column: Annotated[str, typer.Option(help="In USERS.")] = "user_id",
    separator: Separator = None,
    encoding: Encoding = "utf-8",
    quote: Quote = '"',
    popularity: Annotated[
        bool,
        typer.Option(
            "--popularity/--no-popularity",
            help="Keep the number of users of each item in every catalogue, if it was counted.",
        ),
    ] = True,
    salts: Annotated[
        Literal["random", "keep"],
        typer.Option(
            "--salt",
            help="Salts that DATA derives from users' ids, as published datasets do. random: replace them; keep: the "
            "model is that of DATA, to the bit, but who guesses ids knows their users' tickets.",
        ),
    ] = "random",
    as_json: Json = False,
) -> None:
    """Try a federation on one machine: a public folder for the server, and a private one for each node."""
    from fedrec import console
    from fedrec.data.dataset import Dataset
    from fedrec.data.manifest import read_manifest
    from fedrec.data.node_folders import SERVER, partition_dataset
    from fedrec.data.popularity import COUNTED
    from fedrec.data.readers.lines import TextFormat
    from fedrec.data.user_ids import load_user_ids

    dataset, text_format = Dataset.open(data), TextFormat(separator, encoding, quote, bad_rows=0)
    partitions = _partitions(dataset.users, nodes, dirichlet, seed, by, column, user_column, text_format)
    folders = partition_dataset(dataset, out, partitions, popularity, keep_salts=salts == "keep")
    counted = read_manifest(out / SERVER).get("popularity") == COUNTED
    if as_json:
        told = [
            {"folder": str(folder), "users": len(load_user_ids(folder)), "about": partition.about}
            for folder, partition in zip(folders, partitions, strict=True)
        ]
        print(json.dumps({"server": str(out / SERVER), "nodes": told, "popularity": counted}))
        return
    table = console.table("folder", "users", "holds")
    table.add_row(str(out / SERVER), "–", "the catalogue: what everybody may know")
    for folder, partition in zip(folders, partitions, strict=True):
        table.add_row(str(folder), f"{len(partition.users):,}", partition.about)
    console.show(table)
    if counted:
        console.warn(
            "the catalogue in every folder, the server's too, tells how many of all users had each item in their "
            "training events (`popularity`); --no-popularity leaves that out"
        )


def _partitions(
    ids: "pl.Series",
    nodes: int | None,
    dirichlet: float | None,
    seed: int,
    by: Path | None,
    column: str | None,
    user_column: str,
    text_format: "TextFormat",
) -> "list[UserPartition]":
    """Partition the users as the options ask. Raises `InputError` if they contradict each other."""
    from fedrec.data.partition import partition_by_column, partition_dirichlet, partition_evenly

    if (nodes is None) == (by is None):
        raise InputError("give exactly one of `nodes`, for a number of nodes, and `by`, for a table of users")
    if by is not None:
        if column is None:
            raise InputError(f"`by` {by}: name the column that has a value for each node with `column`")
        return partition_by_column(ids, by, user_column, column, text_format)
    assert nodes is not None
    if dirichlet is None:
        return partition_evenly(len(ids), nodes)
    if not 0 < dirichlet <= EVEN:
        raise InputError(
            f"`dirichlet` {dirichlet:g}: give a number above 0, {EVEN:,} at most; 100 is nearly even, 0.1 most uneven"
        )
    return partition_dirichlet(len(ids), nodes, dirichlet, seed)


@app.command("prepare")
def node_prepare(
    catalogue: Annotated[Path, typer.Option(help="The federation's public folder.", show_default=False)],
    interactions: Annotated[
        Path,
        typer.Option(help="A CSV, JSON lines or parquet file: user, item and time of each event.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="The node's folder; rebuilt with the same salts.", show_default=False)],
    user_column: Annotated[str, typer.Option(help="In INTERACTIONS.")] = "user_id",
    item_column: Annotated[str, typer.Option(help="In INTERACTIONS.")] = "item_id",
    time_column: Annotated[str, typer.Option(help="Numbers that grow with time, or ISO dates.")] = "timestamp",
    event_column: EventColumn = None,
    separator: Separator = None,
    encoding: Encoding = "utf-8",
    quote: Quote = '"',
    bad_rows: BadRows = 0.01,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Prepare a real node's folder from its own table: nothing of it leaves this machine.

    Events are filtered by the rules that the public folder was prepared by.
    """
    from fedrec import console
    from fedrec.data.node_folders import prepare_node
    from fedrec.data.readers.lines import TextFormat
    from fedrec.data.readers.tables import Tables

    tables = Tables(
        *(interactions, None, user_column, item_column, time_column, ()),
        event=event_column,
        text_format=TextFormat(separator, encoding, quote, bad_rows),
    )
    manifest = prepare_node(catalogue, tables, out, console.warn, strict)
    if as_json:
        print(json.dumps(manifest | {"out": str(out)}))
        return
    console.out.print(
        f"{out}: {manifest['users']:,} users, {manifest['interactions']:,} interactions with items of "
        f"{manifest['name']}. Only you can read it.",
        soft_wrap=True,
    )


@app.command("run")
def node_run(
    data: Annotated[Path, typer.Option(help="The node's folder.", show_default=False)],
    key: Annotated[Path, typer.Option(help="The node's private key.", show_default=False)],
    server: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="The server's address for nodes.", show_default=False)
    ],
    authority: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="The certificate of the authority that signed the server's.", show_default=False
        ),
    ],
    part: Annotated[int, typer.Option(min=0, help="Host this part of the folder's users.")] = 0,
    parts: Annotated[int, typer.Option(min=1, help="Number of parts: other nodes share the folder.")] = 1,
    policy: Policy = None,
) -> None:
    """Join a federation with the code that is installed here: messages for any other code are refused.

    Orders beyond the node's policy are refused, too: see `fedrec node policy`.
    """
    from fedrec.data.manifest import read_manifest
    from fedrec.federation.deployment.supernode import NodeConfig, run_node
    from fedrec.federation.policy.node_policy import load_policy

    read_manifest(data)
    load_policy(data, policy)
    host, _, port = server.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise InputError(f"`server` {server!r}: give a name or an address and a port, as in fedrec.example.org:8000")
    for option, file in {"key": key, "authority": authority}.items():
        if not file.is_file():
            raise InputError(f"`{option}` {file} is not a file; docs/deploy.md describes how to make it")
    if part >= parts:
        raise InputError(f"`part` {part}: with `parts` {parts}, parts are 0 to {parts - 1}")
    config = {"data": str(data.resolve()), "part": part, "parts": parts}
    if policy:
        config["policy"] = str(policy.resolve())
    raise typer.Exit(run_node(NodeConfig(server, authority, key, config)))


@app.command("withdraw")
def node_withdraw(
    run: RunFolder,
    data: Annotated[Path, typer.Option(help="The node's folder.", show_default=False)],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The file to write, for the run's owner.", show_default=False)
    ],
    user: Users = None,
) -> None:
    """Write what users have added to a run's sums, so that the run's owner can forget them.

    Of RUN, the file card.json is enough.
    """
    from fedrec import console
    from fedrec.data.dataset import Dataset
    from fedrec.evaluation import check_dataset
    from fedrec.forgetting import setup_of, write_summand
    from fedrec.recsys.card import load_card

    card, dataset = load_card(run), Dataset.open(data)
    check_dataset(run, card, dataset, other_histories=True)
    write_summand(user or [], setup_of(run, card, dataset), out)
    console.out.print(
        f"{out}: what {len(user or []):,} of the users have added. It tells about them: send it to the run's owner "
        f"alone, who takes it with `fedrec forget RUN --summand {out.name}`.",
        soft_wrap=True,
    )
