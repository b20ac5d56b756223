"""The hook for trackers: an observer of rounds that hands the figures of each to services of others.

Only numbers are handed on, as they are in the run's own log: no name of a node, nothing of a user, and, under
differential privacy, no number that tells who was drawn. A tracker that fails is left out for the rest of the run, with
a warning, and training continues.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from fedrec.data.errors import InputError

logger = logging.getLogger("fedrec")


class Tracker(Protocol):
    """A service or a file that figures are logged to."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Log figures by name, as of a round."""
        ...

    def close(self, finished: bool) -> None:
        """Write what is left, and whether the run came to its end."""
        ...


@dataclass(frozen=True)
class TrackedRun:
    """A run as a tracker presents it."""

    out: Path
    settings: Mapping[str, Any]  # flat

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return self.out.resolve().name


Opener = Callable[[TrackedRun], Tracker]
TRACKERS = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
"""The trackers, and the package that each needs; the extra of fedrec is named like the tracker."""


@dataclass
class Tracking:
    """The open trackers of a run."""

    trackers: dict[str, Tracker] = field(default_factory=dict)
    step: int = 0
    finished: bool = False

    def observe(self, record: Mapping[str, Any]) -> None:
        """Log the figures of a round's record."""
        self.step = record["round"]
        self._log(figures_of(record))

    def finish(self, metrics: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
        """Log the final metrics of a run, by split and protocol, as of the last round."""
        self.finished = True
        self._log(
            {
                f"final/{split}/{protocol}/{name}": float(value)
                for split, protocols in metrics.items()
                for protocol, found in protocols.items()
                for name, value in found.items()
            }
        )

    def _log(self, figures: Mapping[str, float]) -> None:
        for name, tracker in list(self.trackers.items()) if figures else ():
            with self._forgiving(name):
                tracker.log(figures, self.step)

    def close(self) -> None:
        """Close all trackers."""
        for name, tracker in list(self.trackers.items()):
            with self._forgiving(name):
                tracker.close(self.finished)

    @contextmanager
    def _forgiving(self, name: str) -> Iterator[None]:
        """Leave a tracker out if it fails."""
        try:
            yield
        except Exception as error:  # whatever a package of others raises: no round is lost for it
            self.trackers.pop(name, None)
            logger.warning("tracker %s failed and is left out from now on: %s: %s", name, type(error).__name__, error)


@contextmanager
def tracking(names: Sequence[str], run: TrackedRun) -> Iterator[Tracking]:
    """Open trackers by their names, and close them at the end of the block.

    Raises `InputError` if one is unknown or cannot be opened, or if its package is not installed.
    """
    found = Tracking()
    try:
        for name in dict.fromkeys(names):
            found.trackers[name] = _open(name, run)
        yield found
    finally:
        found.close()


def _open(name: str, run: TrackedRun) -> Tracker:
    """Open a tracker. Raises `InputError`, also for what its package raises."""
    opener = opener_of(name)
    try:
        return opener(run)
    except Exception as error:  # whatever a package of others raises: an address that is away, a store it refuses
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"`track` = {name} cannot be opened ({reason}); mend it, or leave it out") from error


def check_trackers(names: Sequence[str]) -> None:
    """Raise `InputError` if a tracker is unknown, or if its package is not installed."""
    for name in names:
        opener_of(name)


def opener_of(name: str) -> Opener:
    """Return the function that opens a tracker. Raises `InputError` if there is none, or if its package is missing."""
    if name not in TRACKERS:
        raise InputError(f"`track` = {name!r} is not known; choose one of {', '.join(TRACKERS)}")
    try:
        import_module(TRACKERS[name])
    except ImportError as error:
        raise InputError(
            f"`track` = {name} needs the package {TRACKERS[name]} ({error}); install it by pip install 'fedrec[{name}]'"
        ) from error
    return import_module(f"fedrec.federation.tracking.to_{name}").open_tracker


def figures_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a round's record by name; those of a table within it are `table/name`."""
    figures: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            figures |= {f"{name}/{inner}": number for inner, number in figures_of(value).items()}
        elif isinstance(value, int | float) and name != "round":
            figures[name] = float(value)
    return figures
