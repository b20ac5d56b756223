"""`fedrec federation`: Flower processes on this machine, the Flower app, certificates and keys."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="A real federation: Flower processes, certificates and keys.")


@app.command("up")
def federation_up(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A prepared folder.")],
    nodes: Annotated[int, typer.Option(min=1, help="Number of SuperNodes that share the users.")] = 2,
    folder: Annotated[Path, typer.Option(help="A new or empty folder for logs, keys and the nodes' data.")] = Path(
        "var/federation"
    ),
) -> None:
    """Start a SuperLink and SuperNodes, show their state, and stop them all on Ctrl-C."""
    from fedrec.local_federation.up import up

    up(data, nodes, folder)


@app.command("app")
def federation_app(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new or empty folder for the app.")],
) -> None:
    """Write the Flower app that `flwr run` sends, from the installed package."""
    from fedrec import console
    from fedrec.data.storage.contents import refuse_occupied
    from fedrec.federation.deployment import app_bundle

    refuse_occupied(folder, "`folder`")
    app_bundle.write(folder)
    console.out.print(f"{folder} holds the Flower app of this fedrec. Train with it: flwr run {folder}", soft_wrap=True)


@app.command("certify")
def federation_certify(
    out: Annotated[Path, typer.Option(help="The folder of the certificates.", show_default=False)],
    host: Annotated[
        list[str] | None,
        typer.Option(help="A name or address of the server; repeatable.", show_default="localhost"),
    ] = None,
) -> None:
    """Create certificates for development: an authority's for the nodes, and the server's, valid for 90 days."""
    from fedrec import console
    from fedrec.local_federation.certificates import AUTHORITY, CERTIFICATE, DAYS, KEY, certify

    names = certify(out, host or ["localhost", "127.0.0.1"])
    console.out.print(
        f"{out}: {AUTHORITY} for every node, {CERTIFICATE} and {KEY} for the server alone, which is called "
        f"{' or '.join(names)}; valid for {DAYS} days.",
        soft_wrap=True,
    )


@app.command("key")
def federation_key(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The private key; FILE.pub becomes the public one.")],
) -> None:
    """Create a node's key, on the node: the private half stays there, the public half is registered at the server."""
    from fedrec import console
    from fedrec.local_federation.certificates import node_key

    public = node_key(out)
    console.out.print(f"{out} stays here. Register the other: flwr supernode register {public}", soft_wrap=True)
