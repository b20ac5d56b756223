"""Recommend with a run: once, or over HTTP."""

import gc
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrec.commands.options import Json, RunFolder
from fedrec.data.errors import InputError

if TYPE_CHECKING:
    from fedrec.answers import QuestionFields

app = typer.Typer()

SWITCH = 0.0001
"""Seconds after which a thread that computes has Python's lock back from the one that reads requests."""


@app.command()
def recommend(
    run: RunFolder,
    history: Annotated[str | None, typer.Option(metavar="ID,ID,…", help="Item ids, oldest first.")] = None,
    item: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="An id of the history, commas and blanks included; repeatable."),
    ] = None,
    query: Annotated[str | None, typer.Option(metavar="TEXT", help="Free text.")] = None,
    shard: Annotated[Path | None, typer.Option(metavar="DIR", help="A node's folder, for one of its users.")] = None,
    user: Annotated[str | None, typer.Option(metavar="ID", help="With --shard: the user's id there.")] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="With --shard: ask this server, which gets a vector.", show_default="rank here"
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="FEDREC_API_KEY", metavar="KEY", help="With --endpoint: its key, if it needs one."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Number of items.")] = 10,
    as_json: Json = False,
) -> None:
    """Recommend items for a history, a text, or a user of a node's folder, whose history stays there."""
    from fedrec import console
    from fedrec.on_device import recommend_on_device
    from fedrec.run import load

    if shard is not None:
        if user is None or history is not None or item or query is not None:
            raise InputError(
                "`shard` goes with `user`, one of its users, and with none of `history`, `item` and `query`"
            )
        answer = recommend_on_device(load(run), shard, user, k, endpoint, api_key)
    else:
        if needless := [name for name, value in (("user", user), ("endpoint", endpoint)) if value is not None]:
            raise InputError(f"`{needless[0]}` goes with `shard`, a node's folder; add it")
        answer = load(run).answer(**_question(_ids(history, item), query, k))
    if as_json:
        print(answer.model_dump_json(ensure_ascii=True))
        return
    if answer.unknown_ids:
        console.warn(f"not in the catalogue, skipped: {', '.join(answer.unknown_ids)}")
    console.show(console.items_table(f"top {k} of {answer.model_version}", answer.items))


ONE_SOURCE = "give exactly one of `history`, `item` and `query`"


def _ids(history: str | None, items: list[str] | None) -> list[str] | None:
    """Return the ids of `history`, split at commas and stripped of blanks, or those of `item` as they are."""
    if history is None:
        return items or None
    if items:
        raise InputError(ONE_SOURCE)
    return [item_id.strip() for item_id in history.split(",") if item_id.strip()]


def _question(history: list[str] | None, query: str | None, k: int) -> "QuestionFields":
    """Return the fields of a question. Raises `InputError` unless there is either a history or a query."""
    if (history is None) == (query is None):
        raise InputError(ONE_SOURCE)
    if history == [] or (query is not None and not query.strip(" ,")):
        raise InputError("`history` and `query` may not be empty")
    return {"query": query, "k": k} if query is not None else {"history": history or [], "k": k}


@app.command()
def serve(
    run: RunFolder,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.", show_default="8080")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For items put in and feedback.", show_default="in memory"),
    ] = None,
    rate_per_minute: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Plain questions of a caller at most.", show_default="no limit"),
    ] = None,
    max_body_bytes: Annotated[
        int | None, typer.Option(min=1000, metavar="N", help="Of a request at most.", show_default="2,000,000")
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="For an answer.", show_default="30")
    ] = None,
    receive_limit: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="For a request to arrive whole.", show_default="20")
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="A web page that may call from a browser; repeatable.", show_default="none"),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name to be addressed by; repeatable.",
            show_default="this machine's own on a loopback address, else any",
        ),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS", help="Whose X-Forwarded-For is believed; repeatable, or CIDR.", show_default="none"
        ),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="TOML: keys, and all of the above.", show_default="FEDREC_… in the environment"
        ),
    ] = None,
) -> None:
    """Answer over HTTP: a page at /, the API at /v1, its documentation at /docs, /metrics, /healthz, /readyz."""
    from fedrec.serving.settings import Settings

    flags = {
        "host": host,
        "port": port,
        "store": store,
        "rate_per_minute": rate_per_minute,
        "max_body_bytes": max_body_bytes,
        "time_limit": time_limit,
        "receive_limit": receive_limit,
        "cors_origins": cors_origin or None,
        "allowed_hosts": allowed_host or None,
        "trusted_proxies": trusted_proxy or None,
    }
    asked = Settings.read(settings, flags)
    with _listen(asked.host, asked.port) as listener:
        import uvicorn

        from fedrec import console
        from fedrec.recsys.recommender import Recommender
        from fedrec.serving.http.access_log import log_requests
        from fedrec.serving.http.app import create_app
        from fedrec.serving.http.protocol import configured

        recommender = Recommender.load(run)
        first = iter([recommender])  # what is there when it starts; a reload opens the folder anew
        # To look through all that the libraries made, for garbage, would stop every answer for a quarter of a second.
        app = create_app(lambda: next(first, None) or Recommender.load(run), asked, run, loaded=gc.freeze)
        shown = f"[{asked.host}]" if ":" in asked.host else asked.host
        console.status(
            f"{recommender.version} at http://{shown}:{listener.getsockname()[1]} (API at /docs, Ctrl-C stops)"
        )
        log_requests()
        sys.setswitchinterval(SWITCH)
        uvicorn.Server(configured(app, asked)).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before anything else, so that one in use is known at once."""
    listener = None
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except (OSError, UnicodeError) as error:  # a name with a part of more than 63 characters is the latter
        if listener:
            listener.close()
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"--host {host} --port {port} cannot be used ({reason}); choose another") from error
    return listener
