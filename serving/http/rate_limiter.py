"""Rate limits: plain questions a minute of each caller."""

import hashlib
import secrets
import time
from dataclasses import dataclass, field

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage, Storage
from limits.strategies import MovingWindowRateLimiter
from starlette.exceptions import HTTPException


@dataclass(frozen=True, eq=False)
class Windows:
    """Where callers' hits are counted, under names that nobody without the key can find out."""

    storage: Storage = field(default_factory=MemoryStorage)
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def hide_name(self, name: str) -> str:
        """Return a keyed hash of a caller's name."""
        return hashlib.blake2b(name.encode(errors="surrogateescape"), key=self.key, digest_size=32).hexdigest()


class RateLimiter:
    """A moving window for each caller."""

    def __init__(self, per_minute: int, windows: Windows | None = None, tenant: str = "") -> None:
        """Limit each caller of a tenant to `per_minute` plain questions; 0: no limit."""
        self._tenant = tenant
        self._rate = RateLimitItemPerMinute(per_minute) if per_minute else None
        self._windows = windows or Windows()
        self._limiter = MovingWindowRateLimiter(self._windows.storage)

    def charge(self, name: str, amount: int) -> None:
        """Count plain questions of a caller. Raises `HTTPException` 429 beyond the limit; these are not counted."""
        if not self._rate or amount <= 0:
            return
        caller = self._windows.hide_name(f"{self._tenant} {name}")
        if self._limiter.hit(self._rate, caller, cost=amount):
            return
        if amount >= self._rate.amount:
            detail = f"this counts as {amount + 1:,} plain questions, and the limit is {self._rate}; ask less"
        else:
            detail = f"more than {self._rate}; try again later"
        raise HTTPException(429, detail, {"retry-after": str(self._seconds_to_wait(self._rate, caller, amount))})

    def _seconds_to_wait(self, rate: RateLimitItemPerMinute, caller: str, amount: int) -> int:
        """Return the seconds until a plain question is admitted again; for several, until all of them certainly are."""
        if amount > 1:
            return rate.get_expiry()
        return max(1, round(self._limiter.get_window_stats(rate, caller).reset_time - time.time()))
