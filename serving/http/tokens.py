"""User tokens: JSON Web Tokens (RFC 7519) that say which user their holder is. Any library that signs HS256 makes them.

An application's backend, which knows who is logged in, signs them with the secret that it shares with the endpoint.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import jwt

ALGORITHM, AUDIENCE = "HS256", "fedrec"
LEEWAY = 10
"""Seconds by which the clocks of two machines may differ."""


class BadToken(Exception):
    """Why a token says nothing, as a sentence."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """Signs and reads tokens with one secret."""

    secret: str = field(repr=False)

    def sign(self, user: str, seconds: int) -> tuple[str, datetime]:
        """A token for a user, and when it expires."""
        expires = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds)
        claims = {"sub": user, "aud": AUDIENCE, "exp": expires}
        return jwt.encode(claims, self.secret, algorithm=ALGORITHM), expires

    def user(self, token: str) -> str:
        """The user of a token. Raises `BadToken`."""
        try:
            claims = jwt.decode(
                token, self.secret, [ALGORITHM], {"require": ["sub", "aud", "exp"]}, audience=AUDIENCE, leeway=LEEWAY
            )
        except jwt.ExpiredSignatureError:
            raise BadToken("this user token has expired; get another") from None
        except (jwt.InvalidTokenError, RecursionError):  # its header is read before the signature
            raise BadToken(f"this user token is not signed for this server ({ALGORITHM}; sub, aud and exp)") from None
        return claims["sub"]
