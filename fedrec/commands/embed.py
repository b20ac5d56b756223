"""`fedrec data embed`: embed the items of a prepared folder ahead of training."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fedrec.commands.options import Json

app = typer.Typer()


@app.command("embed")
def data_embed(
    data: Annotated[Path, typer.Argument(help="A prepared folder.")],
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="Hub ids or folders, images:MODEL, vectors:NAME.",
            show_default="the vectors if given, else the default of the setting",
        ),
    ] = None,
    prompt: Annotated[str, typer.Option(help="Text before each text.", show_default="the model's own")] = "",
    vectors: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Bring your own: parquet, CSV or npz with ids and numbers."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Embed the items again: texts, pictures, or vectors that you bring. Training and nodes find them in the folder."""
    from fedrec import console
    from fedrec.data.dataset import Dataset
    from fedrec.embedding import embed_dataset

    dataset = Dataset.open(data)
    found = embed_dataset(dataset, encoder=encoder, prompt=prompt, vectors=vectors)
    if as_json:
        print(json.dumps(found))
        return
    console.out.print(
        f"{data}: {len(dataset.catalogue):,} items, {found['width']:,} numbers each, by {found['encoder']}. Next:\n"
        f"  fedrec train {data} --out RUN --set encoder={found['encoder']}",
        soft_wrap=True,
    )
