"""User tokens: JSON Web Tokens (RFC 7519) that identify a user. Any library that signs HS256 can create them.

An application's backend, which knows the logged-in user, signs them with the secret that it shares with the endpoint.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import jwt

ALGORITHM, AUDIENCE = "HS256", "fedrec"
LEEWAY = 10
"""Seconds by which the clocks of two machines may differ."""


class InvalidTokenError(Exception):
    """A token that identifies no user; the message is a sentence."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """Signs and reads tokens with one secret."""

    secret: str = field(repr=False)

    def sign(self, user: str, seconds: int) -> tuple[str, datetime]:
        """Sign a token for a user; return it and its expiry."""
        expires = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds)
        claims = {"sub": user, "aud": AUDIENCE, "exp": expires}
        return jwt.encode(claims, self.secret, algorithm=ALGORITHM), expires

    def verify(self, token: str) -> str:
        """Verify a token and return its user. Raises `InvalidTokenError`."""
        try:
            claims = jwt.decode(
                token, self.secret, [ALGORITHM], {"require": ["sub", "aud", "exp"]}, audience=AUDIENCE, leeway=LEEWAY
            )
        except jwt.ExpiredSignatureError:
            raise InvalidTokenError("this user token has expired; get another") from None
        except (jwt.InvalidTokenError, RecursionError):  # its header is read before the signature
            raise InvalidTokenError(
                f"this user token is not signed for this server ({ALGORITHM}; sub, aud and exp)"
            ) from None
        return claims["sub"]
