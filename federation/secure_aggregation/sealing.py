"""Sealing: authenticated encryption of what one node sends another through the server (ChaCha20-Poly1305, RFC 8439)."""

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

_NONCE = 12
SEAL_BYTES = _NONCE + 16
"""The bytes that sealing adds to a text: a nonce and a tag."""


def seal(key: bytes, text: bytes, about: bytes) -> bytes:
    """Encrypt a text under a key, bound to what it is about."""
    nonce = secrets.token_bytes(_NONCE)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, text, about)


def unseal(key: bytes, sealed: bytes, about: bytes) -> bytes:
    """Decrypt a text. Raises `ValueError` if it was sealed under another key, about something else, or was changed."""
    try:
        return ChaCha20Poly1305(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], about)
    except InvalidTag as error:
        raise ValueError("a sealed text was changed, or is not for this node") from error
