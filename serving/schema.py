"""What can be asked and what is answered."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_K = 1000
ItemId = Annotated[str, Field(min_length=1, max_length=200)]


class Question(BaseModel):
    """A request for the top k, from exactly one of a history, a text, or a user vector made on the device."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"query": "a heist that goes wrong", "k": 5}]}
    )

    history: list[ItemId] | None = Field(
        default=None, min_length=1, max_length=10_000, description="item ids, oldest first; neither logged nor kept"
    )
    query: str | None = Field(
        default=None, min_length=1, max_length=2000, description="free text; neither logged nor kept"
    )
    vector: list[Annotated[float, Field(allow_inf_nan=False)]] | None = Field(
        default=None, min_length=1, max_length=10_000, description="a user vector computed where the history is"
    )
    k: int = Field(default=10, ge=1, le=MAX_K, description="how many items to answer")
    exclude: list[ItemId] = Field(default_factory=list, max_length=10_000, description="item ids not to answer")
    exclude_seen: bool = Field(default=True, description="leave out the items of `history`")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.history, self.query, self.vector)) != 1:
            raise ValueError("give exactly one of history, query and vector")
        return self


class Item(BaseModel):
    item_id: str
    title: str
    score: float = Field(description="cosine of the item's vector and the question's: -1 to 1")


class Answer(BaseModel):
    """The top k, best first."""

    items: list[Item]
    model_version: str
    took_ms: float
    unknown_ids: list[str] = Field(default_factory=list, description="ids given that the catalogue does not know")


class Health(BaseModel):
    status: str
    model_version: str | None = None
    items: int | None = None


class Fault(BaseModel):
    """One thing wrong with a request."""

    field: str
    detail: str


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[Fault] = Field(default_factory=list)
