"""Ids in paths: a request is routed by its path as it was sent, and an id is decoded once.

A server decodes `%2F` before it routes, so that `/v1/items/p1%2Fsimilar` (the item "p1/similar") and
`/v1/items/p1/similar` (the neighbours of "p1") would look alike. A path that is not decoded cannot be mistaken.
"""

from urllib.parse import quote, unquote

from starlette.convertors import Convertor, register_url_convertor
from starlette.types import Scope

_SUFFIXES = {"/v1/items/": {"GET": ("/similar",)}, "/v1/users/": {"POST": ("/token",)}}
"""Paths that hold an id, and the suffixes that may follow it, by method. Every route below an id must be listed here:
any other suffix is read as a part of the id, and so is a listed one that is encoded (`%2Fsimilar`)."""


class IdConvertor(Convertor[str]):
    """One percent-encoded segment ↔ an id. Bytes that are not UTF-8 become surrogates, which no id may hold."""

    regex = "[^/]*"

    def convert(self, value: str) -> str:
        return unquote(value, errors="surrogateescape")

    def to_string(self, value: str) -> str:
        return quote(value, safe="")


register_url_convertor("id", IdConvertor())


def routed_path(scope: Scope) -> str:
    """Return the path to route by: an id in it is one percent-encoded segment, whatever slashes it was sent with."""
    root = scope.get("root_path", "")
    path = scope["path"].removeprefix(root)
    prefix = next((prefix for prefix in _SUFFIXES if path.startswith(prefix)), None)
    if prefix is None:
        return scope["path"] if "\n" not in path else quote(scope["path"])  # a route's `$` also matches before "\n"
    sent = (scope.get("raw_path") or quote(scope["path"]).encode()).decode("latin-1").removeprefix(root)
    return root + (_encode_slashes(sent, prefix, scope["method"]) if sent.startswith(prefix) else sent)


def _encode_slashes(sent: str, prefix: str, method: str) -> str:
    """Convert `/v1/items/a/b/similar` to `/v1/items/a%2Fb/similar`."""
    encoded = sent.removeprefix(prefix)
    suffix = next((suffix for suffix in _SUFFIXES[prefix].get(method, ()) if encoded.endswith(suffix)), "")
    return prefix + encoded.removesuffix(suffix).replace("/", "%2F") + suffix
