"""Signatures: Ed25519 (RFC 8032). A node's identity is its public key."""

from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE_BYTES = 64


def draw_identity() -> bytes:
    """Draw a private key from the operating system's generator."""
    return Ed25519PrivateKey.generate().private_bytes_raw()


def identity_of(private: bytes) -> bytes:
    """Compute the public key that belongs to a private one."""
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def sign(private: bytes, text: bytes) -> bytes:
    """Sign a text."""
    return Ed25519PrivateKey.from_private_bytes(private).sign(text)


@lru_cache(maxsize=2**12)
def is_signed(identity: bytes, text: bytes, signature: bytes) -> bool:
    """Check a signature of a text; a key that is none has signed nothing.

    An answer depends on public bytes alone, so that a process that hosts many nodes of a group, or the server, which
    checks keys when they come and again in their group, computes it once.
    """
    try:
        Ed25519PublicKey.from_public_bytes(identity).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True
