"""Recommend with a run: once, or over HTTP."""

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrec.commands.options import Json, OptionalRunFolder, RunFolder, optional_folder
from fedrec.data.errors import InputError
from fedrec.exports.hub import local_folder

if TYPE_CHECKING:
    from fedrec.answers import QuestionFields
    from fedrec.serving.settings import Settings

app = typer.Typer()


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
    run: OptionalRunFolder = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.", show_default="8080")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(metavar="FILE|URL", help="For added items and feedback.", show_default="in memory"),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Another run, for an A/B test.", show_default=False, callback=optional_folder),
    ] = None,
    share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of callers for --against.", show_default="0.5")
    ] = None,
    tenant: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=RUN", help="Instead of RUN: a model at /t/NAME; repeatable.", show_default=False),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes behind the port; they need a store.", show_default="1")
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(
            metavar="KIND:URL", help="A Qdrant or pgvector that holds the index.", show_default="in memory, by FAISS"
        ),
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
    from fedrec.serving.settings import Settings, check_public_address, check_public_index

    if store is not None:
        check_public_address(store)
    if index is not None:
        check_public_index(index)
    flags = {"host": host, "port": port, "store": store, "workers": workers, "index": index}
    flags |= {"against": against, "share": share, "tenants": _tenant_runs(tenant or [])}
    chosen = Settings.read(settings, Settings.parse_pairs(changes or []) | _given(flags))
    _check_models(run, chosen)
    with _listen(chosen.host, chosen.port) as listener:
        from fedrec import console
        from fedrec.serving.http.server import Endpoint

        address = f"[{chosen.host}]" if ":" in chosen.host else chosen.host
        url = f"http://{address}:{listener.getsockname()[1]}"
        Endpoint(run, chosen).serve(
            listener, lambda served: console.status(f"{served} at {url} (API at /docs, Ctrl-C stops)")
        )


def _tenant_runs(pairs: list[str]) -> dict[str, dict[str, Path | None]] | None:
    """Split texts such as `shop=runs/shop`. Raises `InputError`."""
    runs: dict[str, dict[str, Path | None]] = {}
    for pair in pairs:
        name, separator, run = pair.partition("=")
        if not (name and separator and run):
            raise InputError(f"--tenant {pair!r} is not NAME=RUN; write --tenant shop=runs/shop")
        if name in runs:
            raise InputError(f"--tenant {name} is given twice; give each tenant its own name")
        runs[name] = {"run": local_folder(run)}
    return runs or None


def _check_models(run: Path | None, settings: "Settings") -> None:
    """Raise `InputError` unless there is either a run or tenants."""
    if (run is None) == (not settings.tenants):
        raise InputError("give either RUN or tenants, by `--tenant` NAME=RUN or in a file of settings")
    if settings.against is None and "share" in settings.model_fields_set:
        raise InputError("`share` goes with `against`, the run that answers this share of the callers; add it")
    if settings.tenants and settings.against:
        raise InputError("`against` goes with RUN; a tenant has its own: tenants.NAME.against in a file of settings")


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
