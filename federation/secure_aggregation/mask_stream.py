"""Masks: the streams of 256-bit keys, as numbers modulo 2⁶⁴ (federation/key_stream.py)."""

from collections.abc import Iterable

import numpy as np

from fedrec.federation.key_stream import open_stream

_PIECE = 2**13
"""The numbers that all masks are added to before the next ones, so that they stay in a core's cache."""
_ZEROS = bytes(8 * _PIECE)


def add_masks(total: np.ndarray, masks: Iterable[tuple[bytes, int]]) -> None:
    """Add masks to numbers modulo 2⁶⁴, in place: (P,) uint64. Each is a key and a sign, 1 or -1.

    A key masks one vector in its life.
    """
    streams = [(open_stream(key), np.add if sign > 0 else np.subtract) for key, sign in masks]
    drawn = bytearray(len(_ZEROS))
    for start in range(0, len(total), _PIECE):
        piece = total[start : start + _PIECE]
        zeros = memoryview(_ZEROS)[: 8 * len(piece)]
        mask = np.frombuffer(drawn, dtype="<u8", count=len(piece))
        for stream, combine in streams:
            stream.update_into(zeros, drawn)
            combine(piece, mask, out=piece)
