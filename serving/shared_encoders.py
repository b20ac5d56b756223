"""Text encoders, each loaded once in a process: for all tenants, both arms of an A/B test, and across reloads."""

from contextlib import suppress
from dataclasses import astuple
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

from fedrec.data.errors import InputError
from fedrec.recsys.encoders.joined import ItemEncoder, JoinedEncoder
from fedrec.recsys.encoders.text import Encoder
from fedrec.recsys.recommender import Recommender

_ENCODERS: WeakValueDictionary[tuple[Any, ...], Encoder] = WeakValueDictionary()
"""By everything that decides a vector; an encoder is there as long as a model uses it."""

_TURN = Lock()


def share_encoder(recommender: Recommender) -> Recommender:
    """Let a model use the encoder that another one has opened, if it is the same.

    One that cannot be opened is left to the first question that needs it.
    """
    with _TURN, suppress(InputError):
        vars(recommender)["encoder"] = _find_shared(recommender.encoder)
    return recommender


def _find_shared(encoder: ItemEncoder) -> ItemEncoder:
    if isinstance(encoder, JoinedEncoder):
        parts = tuple(_find_shared(part) if isinstance(part, Encoder) else part for part in encoder.parts)
        return JoinedEncoder(parts)  # type: ignore[arg-type]  # a part is shared as what it is
    return _ENCODERS.setdefault((type(encoder), *astuple(encoder)), encoder)
