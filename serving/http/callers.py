"""Who asks: the holder of a key, a user with a token, or an address; and whose data a caller may touch."""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import SecretStr
from starlette.exceptions import HTTPException
from starlette.types import Scope

from fedrec.serving.http.tokens import BadToken, Tokens
from fedrec.serving.settings import Settings

READ, ADMIN = "read", "admin"
_HEADERS = (b"x-api-key", b"x-user-token", b"authorization")


@dataclass(frozen=True)
class Caller:
    """What a request's headers show of its sender."""

    role: str | None  # READ, ADMIN, or None: may not ask at all
    name: str  # whose requests are counted together
    user: str | None = None  # whose token it is
    fault: str | None = None  # why the token is not accepted

    def require_admin(self) -> None:
        if self.role != ADMIN:
            raise HTTPException(403, "this needs one of the server's admin_keys, in the header x-api-key")

    def require_user(self, user: str) -> None:
        """Let through the user itself and administrators, whether or not anything is kept of that user."""
        if self.role == ADMIN or (self.user is not None and self.user == user):
            return
        if self.user is not None:
            raise HTTPException(403, "this token is of another user")
        why = self.fault or "what is kept of a user needs that user's token (authorization: Bearer …) or an admin key"
        raise HTTPException(401, why, {"www-authenticate": "Bearer"})


@dataclass(frozen=True, eq=False)
class Keys:
    """The digests of the keys that are known: comparing digests tells nothing of how much of a key was right."""

    read: Sequence[bytes]
    admin: Sequence[bytes]

    @classmethod
    def of(cls, settings: Settings) -> "Keys":
        return cls([_digest(key) for key in settings.read_keys], [_digest(key) for key in settings.admin_keys])

    def role(self, key: bytes) -> str | None:
        """What a key lets its holder do; None for one that is not known. Every known key is compared."""
        if not key:
            return None
        told = hashlib.sha256(key).digest()
        admin = sum(hmac.compare_digest(told, known) for known in self.admin)
        read = sum(hmac.compare_digest(told, known) for known in self.read)
        return ADMIN if admin else READ if read else None


class Callers:
    """Tells callers by the keys and tokens that they send."""

    def __init__(self, settings: Settings) -> None:
        self._keys = Keys.of(settings)
        self._tokens = Tokens(settings.token_secret.get_secret_value()) if settings.token_secret else None

    def of(self, scope: Scope, is_open: bool) -> Caller:
        """Who sent a request; `is_open`: to a path that needs no key."""
        sent = {name: value for name, value in scope["headers"] if name in _HEADERS}
        scheme, _, bearer = sent.get(b"authorization", b"").partition(b" ")
        bearer = bearer.strip() if scheme.lower() == b"bearer" else b""
        key = next((key for key in (sent.get(b"x-api-key", b""), bearer) if self._keys.role(key)), b"")
        user, fault = self._user(sent.get(b"x-user-token") or (bearer if bearer != key else b""))
        name = f"key {key.decode()}" if key else f"user {user}" if user is not None else _address(scope)
        is_free = is_open or not self._keys.read or user is not None
        return Caller(self._keys.role(key) or (READ if is_free else None), name, user, fault)

    def _user(self, token: bytes) -> tuple[str | None, str | None]:
        """The user of a token, or why there is none."""
        if not token or self._tokens is None:
            return None, None
        try:
            return self._tokens.user(token.decode("latin-1")), None
        except BadToken as error:
            return None, str(error)


def _address(scope: Scope) -> str:
    return f"address {(scope.get('client') or ('',))[0]}"


def _digest(key: SecretStr) -> bytes:
    return hashlib.sha256(key.get_secret_value().encode()).digest()
