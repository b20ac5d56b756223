"""Key agreement: X25519 (RFC 7748) and HKDF with SHA-256 (RFC 5869), from the package `cryptography`."""

from collections.abc import Iterable
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedrec.federation.key_stream import KEY_BYTES


class KeyPair(NamedTuple):
    """A private key, and the public key that belongs to it."""

    private: bytes
    public: bytes


def draw_key_pair() -> KeyPair:
    """Draw a key pair from the operating system's generator."""
    return key_pair_of(X25519PrivateKey.generate().private_bytes_raw())


def key_pair_of(private: bytes) -> KeyPair:
    """Compute the public key that belongs to a private one."""
    return KeyPair(private, X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw())


def agree_on_keys(private: bytes, publics: Iterable[bytes], purpose: bytes) -> list[bytes]:
    """Derive the key that a party shares with each of some others for a purpose: the same from either's private key
    and the other's public.

    Raises `ValueError` for a public key of low order, with which the key would not be secret.
    """
    own = X25519PrivateKey.from_private_bytes(private)
    shared = (own.exchange(X25519PublicKey.from_public_bytes(public)) for public in publics)
    return [HKDF(SHA256(), KEY_BYTES, salt=None, info=purpose).derive(secret) for secret in shared]
