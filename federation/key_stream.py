"""The stream of a key: ChaCha20 (RFC 8439) under a 256-bit key that is used once, so that its nonce can be constant."""

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

KEY_BYTES = 32
"""The bytes of a key."""


def open_stream(key: bytes) -> CipherContext:
    """Begin the stream of a key: what it makes of zeros are the stream's bytes."""
    return Cipher(ChaCha20(key, nonce=bytes(16)), mode=None).encryptor()
