"""What can be asked and what is answered."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from fedrec.data.ids import LONGEST_ID, id_fault

MAX_K = 1000
MAX_OFFSET = 10_000
MAX_BATCH = 100
MAX_COLUMNS = 20


def _regular(text: str) -> str:
    if fault := id_fault(text):
        raise PydanticCustomError("id", "{fault}", {"fault": fault})
    return text


def _decoded(text: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise PydanticCustomError("id", "is not UTF-8")
    return text


SentId = Annotated[str, AfterValidator(_decoded)]
"""An id to look up. Bytes that are not UTF-8 are none, and are not replaced."""

ItemId = Annotated[
    str,
    Field(min_length=1, max_length=LONGEST_ID, description="no control characters, and neither '.' nor '..'"),
    AfterValidator(_regular),
]
UserId = ItemId
"""An id as it may come in: the same rule for items and users."""

Number = Annotated[float, Field(allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Value = Annotated[str, Field(max_length=500)] | bool | Whole | Number
Values = Annotated[list[Value], Field(max_length=1000)]


class RequestModel(BaseModel):
    """What comes from outside: a field that is not known is refused."""

    model_config = ConfigDict(extra="forbid")


class Range(RequestModel):
    """Numbers from `min` to `max`, both included; one of them may be left out."""

    min: Number | None = None
    max: Number | None = None


class Question(RequestModel):
    """A request for the top k: from a history, a text, both mixed, a user vector made on the device, or a user whose
    history is kept here by consent."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"query": "a heist that goes wrong", "k": 5},
                {"history": ["50", "181"], "k": 5, "filters": {"genres": ["Comedy", "Drama"], "year": {"min": 1990}}},
                {"history": ["50", "181"], "query": "something calmer", "mix": 0.3, "diversity": 0.4, "explain": True},
            ]
        },
    )

    history: list[ItemId] | None = Field(
        default=None, max_length=10_000, description="item ids, oldest first; neither logged nor kept"
    )
    query: str | None = Field(
        default=None, min_length=1, max_length=2000, description="free text; neither logged nor kept"
    )
    vector: list[Number] | None = Field(
        default=None, min_length=1, max_length=10_000, description="a user vector computed where the history is"
    )
    user: UserId | None = Field(
        default=None, description="a user who has consented to be remembered (see /v1/feedback): with the user's token"
    )
    mix: float = Field(default=0.5, ge=0, le=1, description="with a history and a query: the query's share")
    k: int = Field(default=10, ge=1, le=MAX_K, description="how many items to answer")
    offset: int = Field(
        default=0, ge=0, le=MAX_OFFSET, description="how many of the best to leave out: the page before"
    )
    exclude: list[ItemId] = Field(default_factory=list, max_length=10_000, description="item ids not to answer")
    exclude_seen: bool = Field(default=True, description="leave out the items of the history")
    include: list[ItemId] | None = Field(
        default=None, min_length=1, max_length=10_000, description="rank these items, and no others"
    )
    filters: dict[str, Value | Values | Range] = Field(
        default_factory=dict,
        max_length=MAX_COLUMNS,
        description="by the catalogue's columns: a value, a list of which one is enough, or a range",
    )
    diversity: float = Field(
        default=0.0, ge=0, le=1, description="how much an item's likeness to those before it counts against it"
    )
    explain: bool = Field(default=False, description="tell which items of the history weigh most, and how much")
    details: bool = Field(default=False, description="tell each item's columns, too")

    @model_validator(mode="after")
    def _sources(self) -> Self:
        given = {name for name in ("history", "query", "vector", "user") if getattr(self, name) is not None}
        if given not in ({"history"}, {"query"}, {"vector"}, {"user"}, {"history", "query"}, {"user", "query"}):
            raise ValueError("give a history, a query, a vector or a user; a query can go with a history or a user")
        if self.diversity and self.offset + self.k > MAX_K:
            raise ValueError(f"diversity is among the best {MAX_K:,}: offset and k together may be no more")
        if self.explain and not given & {"history", "user"}:
            raise ValueError("explain needs a history: there is none to explain by")
        return self


class Questions(RequestModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"questions": [{"history": ["50", "181"], "k": 5}, {"query": "a heist"}]}]},
    )

    questions: list[Question] = Field(min_length=1, max_length=MAX_BATCH)


class Weight(BaseModel):
    """An item of the history, and how much lower the score would be without it."""

    item_id: str
    title: str
    weight: float


class Item(BaseModel):
    item_id: str
    title: str
    score: float = Field(
        description="cosine of the item's vector and the question's, -1 to 1; with `fallback`, the popularity; of a "
        "title that holds the text of a search, 1"
    )
    because: list[Weight] | None = Field(default=None, description="where `explain` was asked")
    columns: dict[str, Any] | None = Field(default=None, description="where `details` were asked")


_ANSWER = {
    "items": [{"item_id": "1726", "title": "Moon Heist", "score": 0.61}],
    "model_version": "films-1f2f0fc4b607",
    "took_ms": 2.7,
    "unknown_ids": [],
    "request_id": "0f6c4d1e8a3b4c5d9e7f00112233aabb",
}


class Answer(BaseModel):
    """The top k, best first."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ANSWER]})

    items: list[Item]
    model_version: str
    took_ms: float
    unknown_ids: list[str] = Field(default_factory=list, description="ids given that are not on offer")
    fallback: Literal["popularity"] | None = Field(
        default=None, description="what was answered by, where there was no known item in the history"
    )
    request_id: str = Field(default="", description="to name in feedback")


class Answers(BaseModel):
    """In the order of the questions."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"answers": [_ANSWER]}]})

    answers: list[Answer]


class NewItem(RequestModel):
    """An item to put in, or to put in place of the one with the same id."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"title": "Moon Heist", "text": "Three thieves rob a lunar bank.", "columns": {"year": 2026}}]
        },
    )

    title: str = Field(min_length=1, max_length=1000)
    text: str | None = Field(
        default=None, min_length=1, max_length=20_000, description="what the encoder reads; the title if left out"
    )
    columns: dict[str, Value | Values] = Field(default_factory=dict, max_length=MAX_COLUMNS)


class KnownItem(BaseModel):
    """All that is told of an item on offer."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "item_id": "1726",
                    "title": "Moon Heist",
                    "text": "Three thieves rob a lunar bank.",
                    "columns": {"year": 2026},
                }
            ]
        }
    )

    item_id: str
    title: str
    text: str
    columns: dict[str, Any]


class Feedback(RequestModel):
    """What a user who wants to be remembered did with an item. Sent again, it counts once."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"user": "u-17", "item_id": "50", "kind": "like", "request_id": "", "consent": True}]
        },
    )

    user: UserId
    item_id: ItemId
    kind: Literal["view", "like", "hide"] = Field(description="`hide`: never again; the others make the history")
    request_id: str = Field(default="", max_length=64, description="of the answer that showed the item")
    consent: Literal[True] = Field(description="the user has agreed that this is kept here")


class StoredFeedback(BaseModel):
    """Feedback as it is kept."""

    user: str
    item_id: str
    kind: str
    request_id: str
    at: str


class UserData(BaseModel):
    """All that is kept of a user."""

    user: str
    feedback: list[StoredFeedback]


class Remembered(BaseModel):
    """A user of whom something is kept."""

    user: str
    entries: int


class Everybody(BaseModel):
    """Users of whom something is kept, in the order of their ids."""

    users: list[Remembered]


class NewToken(RequestModel):
    """How long a token is to be valid."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"seconds": 3600}]})

    seconds: int = Field(default=3600, ge=60, le=30 * 24 * 3600, description="until it expires")


class Token(BaseModel):
    """Lets its holder read, write and erase what is kept of one user, until it expires."""

    user: str
    token: str = Field(description="to send as `authorization: Bearer …` or `x-user-token`")
    expires: str


class ModelInfo(BaseModel):
    """A model, and whether it is the one that answers."""

    model_version: str
    items: int
    since: str
    name: str
    recall: float = Field(description="share of the nearest 100 that the index finds; measured")
    mode: Literal["federated", "central"] | None = Field(default=None, description="how it was trained")
    fallback: Literal["popularity"] | None = Field(
        default=None,
        description="what a question is answered by in whose history no item is known; none: it is refused",
    )


class Models(BaseModel):
    models: list[ModelInfo]


class Health(BaseModel):
    status: str
    model_version: str | None = None
    items: int | None = None


class FieldError(BaseModel):
    """One thing wrong with a request."""

    field: str
    detail: str


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldError] = Field(default_factory=list)
