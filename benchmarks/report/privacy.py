"""The figures of utility under differential privacy, from benchmarks/privacy.json."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from fedrec.data.errors import InputError
from fedrec.data.storage.reading import read_json

PRIVACY = Path("benchmarks/privacy.json")
_REMEDY = "make it again with `fedrec bench privacy`"


class Point(BaseModel):
    """The figures at one ε: means over repetitions, and their standard deviation."""

    model_config = ConfigDict(extra="forbid")

    epsilon: float
    noise: float
    ndcg_10: float
    deviation: float


class WorldResult(BaseModel):
    """The figures of one dataset, with some number of pairs counted."""

    model_config = ConfigDict(extra="forbid")

    name: str
    users: int
    items: int
    neighbours: int
    pairs: int
    delta: float
    texts_alone: float
    without_privacy: float
    points: list[Point]


class PrivacyResult(BaseModel):
    """The file as a whole."""

    relation: str
    repetitions: int
    worlds: list[WorldResult]


def read_privacy(root: Path) -> PrivacyResult | None:
    """Read the figures below a clone's root; None if nothing was measured. Raises `InputError` for a damaged file."""
    path = root / PRIVACY
    if not path.exists():
        return None
    try:
        return PrivacyResult.model_validate(read_json(path, _REMEDY))
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}; {_REMEDY}") from error
