"""Questions for recommendations."""

from typing import Self

from pydantic import ConfigDict, Field, model_validator

from fedrec.serving.schema.fields import MAX_COLUMNS, Bound, ItemId, Number, RequestModel, UserId, Value, Values

MAX_K = 1000
MAX_OFFSET = 10_000
MAX_QUESTIONS = 100


class Range(RequestModel):
    """Numbers or dates from `min` to `max`, both inclusive; either may be left out. A date may end early: `2024-06`."""

    min: Bound | None = None
    max: Bound | None = None


class Question(RequestModel):
    """A request for the top k: from a history, a text, both mixed, a user vector computed on the device, or a user
    whose history is stored here by consent."""

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
        default=None, max_length=10_000, description="item ids, oldest first; neither logged nor stored"
    )
    query: str | None = Field(
        default=None, min_length=1, max_length=2000, description="free text; neither logged nor stored"
    )
    vector: list[Number] | None = Field(
        default=None, min_length=1, max_length=10_000, description="a user vector computed where the history is"
    )
    user: UserId | None = Field(
        default=None, description="a user whose feedback is stored by consent (see /v1/feedback): with the user's token"
    )
    mix: float = Field(default=0.5, ge=0, le=1, description="weight of the query, if there is a history, too")
    k: int = Field(default=10, ge=1, le=MAX_K, description="number of items to return")
    offset: int = Field(
        default=0, ge=0, le=MAX_OFFSET, description="number of best items to skip: those of the pages before"
    )
    exclude: list[ItemId] = Field(default_factory=list, max_length=10_000, description="item ids never to return")
    exclude_seen: bool = Field(default=True, description="leave out the items of the history")
    include: list[ItemId] | None = Field(
        default=None, min_length=1, max_length=10_000, description="rank only these items"
    )
    filters: dict[str, Value | Values | Range] = Field(
        default_factory=dict,
        max_length=MAX_COLUMNS,
        description="by catalogue column: a value, a list of accepted values, or a range",
    )
    diversity: float = Field(
        default=0.0, ge=0, le=1, description="weight of an item's similarity to the items before it, against its score"
    )
    explain: bool = Field(
        default=False, description="add the history items that contribute most to each score, and how much"
    )
    details: bool = Field(default=False, description="add each item's columns")

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        sources = {name for name in ("history", "query", "vector", "user") if getattr(self, name) is not None}
        if sources not in ({"history"}, {"query"}, {"vector"}, {"user"}, {"history", "query"}, {"user", "query"}):
            raise ValueError("give a history, a query, a vector or a user; a query can go with a history or a user")
        if self.diversity and self.offset + self.k > MAX_K:
            raise ValueError(f"diversity reorders the best {MAX_K:,} items: offset and k together may be no more")
        if self.explain and not sources & {"history", "user"}:
            raise ValueError("explain needs a history; give one, or leave explain out")
        return self


class Questions(RequestModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"questions": [{"history": ["50", "181"], "k": 5}, {"query": "a heist"}]}]},
    )

    questions: list[Question] = Field(min_length=1, max_length=MAX_QUESTIONS)
