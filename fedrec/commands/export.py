"""`fedrec export`, of what is public of a run, and `fedrec predict`, of what is private."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from fedrec.commands.options import Data, Json, OtherHistories, RunFolder

app = typer.Typer()


@app.command()
def export(
    run: RunFolder,
    to: Annotated[
        Literal["folder", "hub", "onnx", "sentence-transformers"],
        typer.Option(
            help="folder, hub: the artifact and a model card; onnx: the user's side, for devices; "
            "sentence-transformers: the item tower, text in and item vector out."
        ),
    ],
    out: Annotated[
        str, typer.Option(metavar="PLACE", help="A new folder; with --to hub, USER/NAME.", show_default=False)
    ],
    license: Annotated[
        str, typer.Option(metavar="ID", help="The model's license by the hub's name of it, such as apache-2.0.")
    ] = "other",
    public: Annotated[
        bool, typer.Option("--public", help="With --to hub: for everybody, instead of for you alone.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Export what is public of a run: no sums, no state of the server, nothing of a user."""
    from fedrec.run import load

    _report(load(run).export(out, to, license, public), out, as_json)


@app.command()
def predict(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="A new folder, which is private.", show_default=False)],
    data: Data = None,
    format: Annotated[
        Literal["trec", "rectools", "lenskit", "recbole"], typer.Option(help="Whose files to write.")
    ] = "trec",
    split: Annotated[Literal["test", "validation"], typer.Option(help="The split that is predicted.")] = "test",
    k: Annotated[int, typer.Option("-k", min=1, help="Length of a user's list.")] = 100,
    numbering: Annotated[
        int | None,
        typer.Option(
            metavar="SEED", help="Number the users by this seed, the same in every export.", show_default="at random"
        ),
    ] = None,
    user_ids: Annotated[
        bool, typer.Option("--user-ids", help="Write the users' own ids instead of random numbers.")
    ] = False,
    other_histories: OtherHistories = False,
    as_json: Json = False,
) -> None:
    """Write recommendations and held-out items for others' tools of evaluation: private, to be run where DATA is."""
    from fedrec.run import load

    trained = load(run)
    dataset = trained.open_dataset(data, other_histories)
    files = trained.export_predictions(
        out,
        dataset,
        other_histories,
        format=format,
        split=split,
        k=k,
        numbering=numbering,
        user_ids=user_ids,
    )
    _report(files, str(out), as_json)


def _report(files: list[str], out: str, as_json: bool) -> None:
    """Print what was written, and where."""
    from fedrec import console

    if as_json:
        print(json.dumps({"out": out, "files": files}))
        return
    console.out.print(f"{out}: {', '.join(files)}", soft_wrap=True)
