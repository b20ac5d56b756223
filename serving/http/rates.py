"""How much one caller may ask in a minute, counted in plain questions."""

import hashlib
import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.exceptions import HTTPException


class Rates:
    """A moving window for each caller, in memory."""

    def __init__(self, per_minute: int) -> None:
        """0: no limit."""
        self._rate = RateLimitItemPerMinute(per_minute) if per_minute else None
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def charge(self, name: str, amount: int) -> None:
        """Count so many plain questions of a caller. Raises `HTTPException` 429 beyond the limit, uncounted."""
        if not self._rate or amount <= 0:
            return
        caller = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
        if self._limiter.hit(self._rate, caller, cost=amount):
            return
        if amount >= self._rate.amount:
            why = f"this counts as {amount + 1:,} plain questions, and more than {self._rate} is never let in; ask less"
        else:
            why = f"more than {self._rate}; come again later"
        raise HTTPException(429, why, {"retry-after": str(self._wait(self._rate, caller, amount))})

    def _wait(self, rate: RateLimitItemPerMinute, caller: str, amount: int) -> int:
        """Seconds until one plain question may be asked again; for several, until all of them certainly may."""
        if amount > 1:
            return rate.get_expiry()
        return max(1, round(self._limiter.get_window_stats(rate, caller).reset_time - time.time()))
