"""Rate limits: plain questions a minute of each caller."""

import hashlib
import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.exceptions import HTTPException


class RateLimiter:
    """A moving window for each caller, in memory."""

    def __init__(self, per_minute: int) -> None:
        """Limit each caller to `per_minute` plain questions; 0: no limit."""
        self._rate = RateLimitItemPerMinute(per_minute) if per_minute else None
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def charge(self, name: str, amount: int) -> None:
        """Count plain questions of a caller. Raises `HTTPException` 429 beyond the limit; these are not counted."""
        if not self._rate or amount <= 0:
            return
        caller = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
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
