"""The stream of a key: AES-256 (FIPS 197) in counter mode (SP 800-38A), from the package `cryptography`.

A key is used once, so that the counter can begin at zero.
"""

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

KEY_BYTES = 32
"""The bytes of a key."""


def open_stream(key: bytes) -> CipherContext:
    """Begin the stream of a key: what it makes of zeros are the stream's bytes."""
    return Cipher(AES(key), CTR(bytes(16))).encryptor()
