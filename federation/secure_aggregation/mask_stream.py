"""The mask stream: numbers modulo 2⁶⁴ from a 256-bit key, by ChaCha20 (RFC 8439)."""

import numpy as np

from fedrec.federation.key_stream import open_stream

_CHUNK = 2**15
"""The numbers that are drawn at a time, so that they are still in a core's cache when they are added."""
_ZEROS = bytes(8 * _CHUNK)


def add_mask(total: np.ndarray, key: bytes, sign: int = 1) -> None:
    """Add the stream of a key to numbers modulo 2⁶⁴, in place, or subtract it: (P,) uint64, with `sign` 1 or -1.

    A key masks one vector in its life.
    """
    stream = open_stream(key)
    drawn = bytearray(len(_ZEROS))
    combine = np.add if sign > 0 else np.subtract
    for start in range(0, len(total), _CHUNK):
        part = total[start : start + _CHUNK]
        stream.update_into(memoryview(_ZEROS)[: 8 * len(part)], drawn)
        combine(part, np.frombuffer(drawn, dtype="<u8", count=len(part)), out=part)
