"""Secret sharing: any `threshold` shares give a secret, and fewer nothing (Shamir 1979, doi:10.1145/359168.359176).

A secret is the constant term of a random polynomial of degree `threshold` - 1 over a prime field, and share x is the
polynomial's value at x = 1, 2, …. Python's integers do not take constant time: shares are computed on a node for
itself, and nobody else on that machine should be able to time it.
"""

import secrets
from collections.abc import Mapping
from functools import lru_cache

PRIME = 2**521 - 1
"""The field's size: a Mersenne prime, that of the curve P-521 (FIPS 186), above any secret of 32 bytes."""
SECRET_BYTES, SHARE_BYTES = 32, 66


def share_secret(secret: bytes, count: int, threshold: int) -> list[bytes]:
    """Split a secret of 32 bytes into `count` shares, of which `threshold` give it: the shares at x = 1 to `count`.

    Raises `ValueError` for a secret of another length, or a threshold that no shares can reach.
    """
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= count:
        raise ValueError(f"a secret of {len(secret)} bytes in {count} shares, of which {threshold} are needed")
    polynomial = [int.from_bytes(secret), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return [_evaluate(polynomial, x).to_bytes(SHARE_BYTES) for x in range(1, count + 1)]


def _evaluate(polynomial: list[int], x: int) -> int:
    """Evaluate a polynomial, constant term first, by Horner's rule.

    The remainder is taken once: x is small, so that the value grows by a few bits a term, and a division takes longer
    than these.
    """
    value = 0
    for coefficient in reversed(polynomial):
        value = value * x + coefficient
    return value % PRIME


def recover_secret(shares: Mapping[int, bytes]) -> bytes:
    """Recover a secret from at least `threshold` shares, by their x.

    Raises `ValueError` if the result cannot be a secret: then a share is wrong.
    """
    weights = _weights_at_zero(tuple(shares))
    value = sum(weight * int.from_bytes(share) for weight, share in zip(weights, shares.values(), strict=True)) % PRIME
    if value >= 2 ** (8 * SECRET_BYTES):
        raise ValueError("the shares do not belong to one secret")
    return value.to_bytes(SECRET_BYTES)


@lru_cache(maxsize=64)
def _weights_at_zero(places: tuple[int, ...]) -> tuple[int, ...]:
    """Compute Lagrange's weights of the values at some x for the value at 0."""
    weights = []
    for x in places:
        above = below = 1
        for other in places:
            if other != x:
                above, below = above * other % PRIME, below * (other - x) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(weights)
