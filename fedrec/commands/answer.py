"""Answer with a run: once, or over HTTP."""

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrec.commands.options import Json, Run
from fedrec.data.errors import InputError

if TYPE_CHECKING:
    from fedrec.serving.schema import Answer, Question

app = typer.Typer()


@app.command()
def recommend(
    run: Run,
    history: Annotated[str | None, typer.Option(metavar="ID,ID,…", help="Item ids, oldest first.")] = None,
    item: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="An id of the history as it is, commas and blanks included; repeatable."),
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
        typer.Option(envvar="FEDREC_API_KEY", metavar="KEY", help="With --endpoint: where it asks for one."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many.")] = 10,
    as_json: Json = False,
) -> None:
    """The top k for a history, a text, or a user of a node's folder, whose history stays there."""
    from fedrec import console

    if shard is not None:
        if user is None or history is not None or item or query is not None:
            raise InputError(
                "--shard goes with --user, one of its users, and with none of --history, --item and --query"
            )
        from fedrec.on_device import recommend

        answer = recommend(run, shard, user, k, endpoint, api_key)
    else:
        if told := [name for name, value in (("--user", user), ("--endpoint", endpoint)) if value is not None]:
            raise InputError(f"{told[0]} goes with --shard, a node's folder; add it")
        answer = _answer(run, _question(_ids(history, item), query, k))
    if as_json:
        print(answer.model_dump_json(ensure_ascii=True))
        return
    if answer.unknown_ids:
        console.warn(f"not in the catalogue, skipped: {', '.join(answer.unknown_ids)}")
    console.show(console.items_table(f"top {k} of {answer.model_version}", answer.items))


def _answer(run: Path, question: "Question") -> "Answer":
    from fedrec.recsys.recommender import Recommender
    from fedrec.serving.engine import Engine
    from fedrec.serving.refusals import UnanswerableError

    try:
        return Engine.from_recommender(Recommender.load(run)).recommend(question)
    except UnanswerableError as refusal:
        raise InputError(f"--{refusal.field}: {refusal.detail}; ids stand in {run}/catalogue.parquet") from refusal


def _ids(history: str | None, items: list[str] | None) -> list[str] | None:
    """The ids of `--history`, which are between commas and without blanks around, or those of `--item` as they are."""
    if history is None:
        return items or None
    if items:
        raise InputError("give exactly one of --history, --item and --query")
    return [item_id.strip() for item_id in history.split(",") if item_id.strip()]


def _question(history: list[str] | None, query: str | None, k: int) -> "Question":
    """What the command line asks, under the same limits as over HTTP. Raises `InputError`."""
    from pydantic import ValidationError

    from fedrec.serving.schema import Question

    if (history is None) == (query is None):
        raise InputError("give exactly one of --history, --item and --query")
    if history == [] or (query is not None and not query.strip(" ,")):
        raise InputError("--history and --query may not be empty")
    try:
        return Question(history=history, query=query, k=k)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"--{first['loc'][0]}: {first['msg'].lower()}; {_mend(first['type'])}") from error


def _mend(kind: str) -> str:
    return "shorten it" if kind in ("string_too_long", "too_long") else "give ids of the catalogue"


@app.command()
def serve(
    run: Run,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.", show_default="8080")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For added items and feedback.", show_default="in memory"),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any other setting, as in docs/settings.md; a list's values are separated by commas; repeatable.",
        ),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="TOML file of settings, keys included.", show_default="FEDREC_… in the environment"
        ),
    ] = None,
) -> None:
    """Answer over HTTP: a page at /, the API at /v1, its documentation at /docs, /metrics, /healthz, /readyz."""
    from fedrec.serving.settings import Settings

    flags = {"host": host, "port": port, "store": store}
    chosen = Settings.read(settings, Settings.parse_pairs(changes or []) | _given(flags))
    with _listen(chosen.host, chosen.port) as listener:
        import uvicorn

        from fedrec import console
        from fedrec.recsys.recommender import Recommender
        from fedrec.serving.http.access_log import log_requests
        from fedrec.serving.http.app import create_app
        from fedrec.serving.http.protocol import uvicorn_config
        from fedrec.serving.process_tuning import freeze_loaded_objects, tune_process

        recommender = Recommender.load(run)
        first = iter([recommender])  # a reload opens the folder again
        app = create_app(lambda: next(first, None) or Recommender.load(run), chosen, run, freeze_loaded_objects)
        address = f"[{chosen.host}]" if ":" in chosen.host else chosen.host
        url = f"http://{address}:{listener.getsockname()[1]}"
        console.status(f"{recommender.version} at {url} (API at /docs, Ctrl-C stops)")
        log_requests()
        tune_process()
        uvicorn.Server(uvicorn_config(app, chosen)).run(sockets=[listener])


def _given(flags: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in flags.items() if value is not None}


def _listen(host: str, port: int) -> socket.socket:
    """Bind the port before anything is loaded, so that a port in use is reported at once."""
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
