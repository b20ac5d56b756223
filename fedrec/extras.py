"""The extras of the distribution: what a node, a server and an endpoint install beside the base."""

from collections.abc import Iterator
from contextlib import contextmanager

from fedrec.data.errors import InputError

EXTRAS = {
    "flower": ("flwr", "dp_accounting", "idna"),
    "serving": (
        *("faiss", "fastapi", "fastapi_offline", "httptools", "jwt", "limits", "prometheus_client"),
        *("pydantic_settings", "pythonjsonlogger", "sqlalchemy", "starlette", "uvicorn"),
    ),
    "postgresql": ("psycopg",),
}
"""The packages of each extra, by the names that they are imported by. `flower` is for training, on nodes and on their
server, and `serving` for recommending, by `Run.recommend` or over HTTP; `postgresql` is for an endpoint
whose store is there.
"""


@contextmanager
def naming_the_extra() -> Iterator[None]:
    """Raise `InputError` with the extra to install, if an import within fails for want of a package of it."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        for extra, packages in EXTRAS.items():
            if package in packages:
                remedy = f"it comes with the extra {extra}: pip install 'fedrec[{extra}]'"
                raise InputError(f"package {package} is not installed; {remedy}") from error
        raise
