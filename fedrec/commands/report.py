"""`fedrec report`: one page about a run."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fedrec.commands.options import Data, Json, OtherHistories, RunFolder

app = typer.Typer()


@app.command()
def report(
    run: RunFolder,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page.")] = Path("report.html"),
    groups: Annotated[
        bool, typer.Option("--groups", help="Also measure groups of users, which needs the data.")
    ] = False,
    nodes: Annotated[
        bool, typer.Option("--nodes", help="Also measure each node's worth, which needs the data and the nodes' sums.")
    ] = False,
    data: Data = None,
    other_histories: OtherHistories = False,
    as_json: Json = False,
) -> None:
    """Write one HTML page about a run, which loads nothing: curves, quality, bytes, privacy, settings, items."""
    from fedrec import console
    from fedrec.run import load
    from fedrec.run_report.page import Wanted, write_report

    trained = load(run)
    dataset = trained.open_dataset(data, other_histories) if groups or nodes else None
    write_report(trained, out, Wanted(dataset, groups, nodes))
    if as_json:
        print(json.dumps({"out": str(out)}))
        return
    console.out.print(f"Wrote {out}.", soft_wrap=True)
