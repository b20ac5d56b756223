"""An A/B test: each of two models answers its share of the callers, and likes are counted for the one that answered."""

import hashlib
import hmac
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock

from scipy.stats import binomtest

from fedrec.serving.schema.experiment import ArmResult, Difference, ExperimentResult
from fedrec.serving.store import Store, StoreBusyError

ARMS = ("a", "b")
"""The model that is served, and the one it is compared with."""

CONFIDENCE = 0.95
_RANDOM, _MARK = 20, 12
"""Characters of a request's id that stay random, and that hold its mark."""


@dataclass(frozen=True, eq=False)
class Experiment:
    """Deals callers into two arms by a keyed hash: no memory, and the same arm in every process and after a restart."""

    name: str  # the key: under another name, callers are dealt anew
    share: float  # of the callers, for the second arm
    store: Store
    secret: bytes = field(default=b"", repr=False)  # without which nobody can mark a request
    _pending: Counter[str] = field(default_factory=Counter, repr=False)  # answers that are not in the store yet
    _turn: Lock = field(default_factory=Lock, repr=False)

    @cached_property
    def _key(self) -> bytes:
        return hashlib.sha256(self.name.encode()).digest()

    def choose_arm(self, unit: str) -> int:
        """Return the arm of a user, a visitor or another caller, as a place in `ARMS`."""
        digest = hashlib.blake2b(unit.encode(errors="surrogateescape"), key=self._key, digest_size=8).digest()
        return int(int.from_bytes(digest) < self.share * 2**64)

    def mark_request(self, request_id: str, arm: int) -> str:
        """Replace the end of a request's id by a mark of its arm, which only the holder of the secret can make."""
        random = request_id[:_RANDOM]
        message = f"{self.name} {ARMS[arm]} {random}".encode()
        return random + hmac.new(self.secret or self._key, message, hashlib.sha256).hexdigest()[:_MARK]

    def find_arm(self, request_id: str) -> str | None:
        """Return the arm that answered a request; None if its id was not marked by this experiment."""
        marked = request_id.partition("-")[0].encode()
        for arm, name in enumerate(ARMS):
            if hmac.compare_digest(self.mark_request(marked.decode(), arm).encode(), marked):
                return name
        return None

    def count_shown(self, arm: int) -> None:
        """Count an answer, in memory until `save_counts`."""
        with self._turn:
            self._pending[ARMS[arm]] += 1

    def save_counts(self) -> None:
        """Add the counted answers to those in the store. Raises `StoreBusyError`; then they stay counted here."""
        with self._turn:
            pending = Counter(self._pending)
            self._pending.clear()
        try:
            self.store.add_shown(self.name, pending)
        except StoreBusyError:
            with self._turn:
                self._pending.update(pending)
            raise

    def read_result(self, versions: tuple[str, ...]) -> ExperimentResult:
        """Return the counts of all processes so far, and how far the arms are apart. Raises `StoreBusyError`."""
        self.save_counts()
        shown, liked = self.store.shown(self.name), self.store.liked(self.name)
        arms = [
            ArmResult(arm=arm, model_version=version, shown=max(shown[arm], liked[arm]), liked=liked[arm])
            for arm, version in zip(ARMS, versions, strict=True)
        ]
        return ExperimentResult(experiment=self.name, share=self.share, arms=arms, difference=_compare(*arms))


def _compare(one: ArmResult, other: ArmResult) -> Difference | None:
    """Return the difference of two rates of likes with Newcombe's interval, of two intervals by Wilson's score.

    R. G. Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine 17
    (1998), method 10. None if an arm has no answers yet.
    """
    if not one.shown or not other.shown:
        return None
    rates = [arm.liked / arm.shown for arm in (one, other)]
    bounds = [binomtest(arm.liked, arm.shown).proportion_ci(CONFIDENCE, "wilson") for arm in (one, other)]
    estimate = rates[1] - rates[0]
    down = ((rates[1] - bounds[1].low) ** 2 + (bounds[0].high - rates[0]) ** 2) ** 0.5
    up = ((bounds[1].high - rates[1]) ** 2 + (rates[0] - bounds[0].low) ** 2) ** 0.5
    return Difference(estimate=estimate, low=estimate - down, high=estimate + up, confidence=CONFIDENCE)
