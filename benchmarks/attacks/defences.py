"""The defences that attacks are run against: named sets of settings, so that a new defence is a new row."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedrec.federation.config import Scalar


@dataclass(frozen=True)
class Defence:
    """A named set of settings. `settings` are those of a run; the other fields are what a run has no setting for."""

    name: str
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    noise: float = 0.0
    """The standard deviation of simulated noise on each number of a sum, in units of what one user may add to it."""
    random_salts: bool = False
    """Whether users' salts are drawn at random instead of derived from their ids."""
    policy: bool = False
    """Whether nodes have the default policy: else they answer whatever they are asked."""

    def __or__(self, other: "Defence") -> "Defence":
        """Put two defences up together."""
        return Defence(
            f"{self.name}, {other.name}",
            {**self.settings, **other.settings},
            max(self.noise, other.noise),
            self.random_salts or other.random_salts,
            self.policy or other.policy,
        )


def over_users(rule: Defence, users: int = 64) -> Defence:
    """Let a rule see the change of each user of a round apart."""
    return Defence(f"{rule.name} over users", {**rule.settings, "groups": users})


OFF = Defence("none", {"exposure_base": 0.0})
"""No defence beside the clip, which every run has: the settings under all other defences."""
POLICY = Defence("policy", policy=True)
PRIVATE = Defence("noise, ε = 8", {"epsilon": 8.0})
FOUR_BITS = Defence("4 bits", {"bits": 4})
ONE_BIT = Defence("1 bit", {"bits": 1})
SMALL_NOISE = Defence("noise 0.1", noise=0.1)
LARGE_NOISE = Defence("noise 1.0", noise=1.0)
MANY_NEGATIVES = Defence("512 negatives", {"negatives": 512})
RANDOM_SALTS = Defence("random salts", random_salts=True)
NORM_BOUND = Defence("norm bound", {"aggregation": "norm-bound"})
TRIMMED_MEAN = Defence("trimmed mean", {"aggregation": "trimmed-mean", "liars": 0.2})
MULTI_KRUM = Defence("multi-Krum", {"aggregation": "multi-krum", "liars": 0.2})
MEDIAN = Defence("median", {"aggregation": "median"})
GEOMETRIC_MEDIAN = Defence("geometric median", {"aggregation": "geometric-median"})
EXPOSURE = Defence("exposure bound", {"exposure_base": "auto"})
"""The default of a run."""
