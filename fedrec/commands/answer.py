"""Answer with a run: once, or over HTTP."""

import gc
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data.errors import InputError
from fedrec.commands.options import Json, Run

if TYPE_CHECKING:
    from serving.schema import Answer, Question

app = typer.Typer()

SWITCH = 0.0005
"""Seconds after which a thread that computes has Python's lock back from the one that reads requests."""


@app.command()
def recommend(
    run: Run,
    history: Annotated[str | None, typer.Option(metavar="ID,ID,…", help="Item ids, oldest first.")] = None,
    query: Annotated[str | None, typer.Option(metavar="TEXT", help="Free text.")] = None,
    shard: Annotated[Path | None, typer.Option(metavar="DIR", help="A node's folder, for one of its users.")] = None,
    user: Annotated[str | None, typer.Option(metavar="ID", help="With --shard: the user's id there.")] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="With --shard: ask this server, which gets a vector.", show_default="rank here"
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many.")] = 10,
    as_json: Json = False,
) -> None:
    """The top k for a history, a text, or a user of a node's folder, whose history stays there."""
    from fedrec import view

    if shard is not None:
        answer = _on_the_device(run, shard, user, k, endpoint, history, query)
    else:
        if told := [name for name, value in (("--user", user), ("--endpoint", endpoint)) if value is not None]:
            raise InputError(f"{told[0]} goes with --shard, a node's folder; add it")
        answer = _answer(run, _question(history, query, k))
    if as_json:
        print(answer.model_dump_json())
        return
    if answer.unknown_ids:
        view.warn(f"not in the catalogue, skipped: {', '.join(answer.unknown_ids)}")
    view.out.print(view.items_table(f"top {k} of {answer.model_version}", answer.items))


def _on_the_device(
    run: Path, shard: Path, user: str | None, k: int, endpoint: str | None, history: str | None, query: str | None
) -> "Answer":
    from fedrec.device import recommend

    if user is None or history is not None or query is not None:
        raise InputError("--shard goes with --user, one of its users, and with neither --history nor --query")
    return recommend(run, shard, user, k, endpoint)


def _answer(run: Path, question: "Question") -> "Answer":
    from recsys.recommender import Recommender
    from serving.engine import Engine, Refused

    try:
        return Engine.of(Recommender.load(run)).recommend(question)
    except Refused as refusal:
        raise InputError(f"--{refusal.where}: {refusal.detail}; ids stand in {run}/catalogue.parquet") from refusal


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
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.", show_default="8080")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For items put in and feedback.", show_default="in memory"),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="TOML: keys, limits and the rest.", show_default="FEDREC_… in the environment"
        ),
    ] = None,
) -> None:
    """Answer over HTTP: a page at /, the API at /v1, its documentation at /docs, /metrics, /healthz, /readyz."""
    from serving.settings import Settings

    asked = Settings.read(settings, {"host": host, "port": port, "store": store})
    with _listen(asked.host, asked.port) as listener:
        import uvicorn

        from fedrec import view
        from recsys.recommender import Recommender
        from serving.app import create_app
        from serving.log import log_requests

        recommender = Recommender.load(run)
        shown = f"[{asked.host}]" if ":" in asked.host else asked.host
        view.say(f"{recommender.version} at http://{shown}:{listener.getsockname()[1]} (API at /docs, Ctrl-C stops)")
        log_requests()
        first = iter([recommender])  # what is there when it starts; a reload opens the folder anew
        # To look through all that the libraries made, for garbage, would stop every answer for a quarter of a second.
        app = create_app(lambda: next(first, None) or Recommender.load(run), asked, run, loaded=gc.freeze)
        sys.setswitchinterval(SWITCH)
        config = uvicorn.Config(app, log_config=None, access_log=False)
        uvicorn.Server(config).run(sockets=[listener])


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
