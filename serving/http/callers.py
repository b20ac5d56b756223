"""Callers: the holder of a key, a user with a token, or an address; and the data that each may access."""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import SecretStr
from starlette.exceptions import HTTPException
from starlette.types import Scope

from fedrec.serving.http.tokens import InvalidTokenError, Tokens
from fedrec.serving.settings import Settings

READ, ADMIN = "read", "admin"
_HEADERS = (b"x-api-key", b"x-user-token", b"authorization", b"x-visitor")


@dataclass(frozen=True)
class Caller:
    """The sender of a request, as its headers identify it."""

    role: str | None  # READ, ADMIN, or None: no access
    name: str  # under which requests are counted
    user: str | None = None  # the token's user
    fault: str | None = None  # the reason why the token is not accepted
    visitor: str | None = None  # the application's word for the person who asks

    @property
    def unit(self) -> str:
        """The person or program that an A/B test deals into an arm."""
        if self.user is not None:
            return f"user {self.user}"
        return self.name if self.visitor is None else f"visitor {self.visitor}"

    def require_admin(self) -> None:
        if self.role != ADMIN:
            raise HTTPException(403, "this needs one of the server's admin_keys, in the header x-api-key")

    def require_user(self, user: str) -> None:
        """Raise `HTTPException` unless the caller is that user or an administrator, even of unknown users."""
        if self.role == ADMIN or (self.user is not None and self.user == user):
            return
        if self.user is not None:
            raise HTTPException(403, "this token is of another user")
        detail = self.fault or "a user's data needs that user's token (authorization: Bearer …) or an admin key"
        raise HTTPException(401, detail, {"www-authenticate": "Bearer"})


@dataclass(frozen=True, eq=False)
class Keys:
    """Digests of the valid keys: the time to compare digests reveals nothing of a key."""

    read: Sequence[bytes]
    admin: Sequence[bytes]

    @classmethod
    def from_settings(cls, settings: Settings) -> "Keys":
        return cls([_digest_key(key) for key in settings.read_keys], [_digest_key(key) for key in settings.admin_keys])

    def find_role(self, key: bytes) -> str | None:
        """Return the role of a key; None if it is not valid. Every valid key is compared."""
        if not key:
            return None
        digest = hashlib.sha256(key).digest()
        admin = sum(hmac.compare_digest(digest, known) for known in self.admin)
        read = sum(hmac.compare_digest(digest, known) for known in self.read)
        return ADMIN if admin else READ if read else None


class Callers:
    """Identifies callers by their keys and tokens."""

    def __init__(self, settings: Settings) -> None:
        self._keys = Keys.from_settings(settings)
        self._tokens = Tokens(settings.token_secret.get_secret_value()) if settings.token_secret else None

    def identify(self, scope: Scope, is_public: bool) -> Caller:
        """Identify the sender of a request; `is_public`: its path needs no key."""
        sent = {name: value for name, value in scope["headers"] if name in _HEADERS}
        scheme, _, bearer = sent.get(b"authorization", b"").partition(b" ")
        bearer = bearer.strip() if scheme.lower() == b"bearer" else b""
        key = next((key for key in (sent.get(b"x-api-key", b""), bearer) if self._keys.find_role(key)), b"")
        user, fault = self._read_token(sent.get(b"x-user-token") or (bearer if bearer != key else b""))
        name = f"key {key.decode()}" if key else f"user {user}" if user is not None else _address_of(scope)
        may_read = is_public or not self._keys.read or user is not None
        visitor = sent[b"x-visitor"].decode("latin-1") if b"x-visitor" in sent else None
        return Caller(self._keys.find_role(key) or (READ if may_read else None), name, user, fault, visitor)

    def _read_token(self, token: bytes) -> tuple[str | None, str | None]:
        """Return the user of a token, or the reason why there is none."""
        if not token or self._tokens is None:
            return None, None
        try:
            return self._tokens.verify(token.decode("latin-1")), None
        except InvalidTokenError as error:
            return None, str(error)


def _address_of(scope: Scope) -> str:
    return f"address {(scope.get('client') or ('',))[0]}"


def _digest_key(key: SecretStr) -> bytes:
    return hashlib.sha256(key.get_secret_value().encode()).digest()
