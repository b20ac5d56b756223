"""Answers to questions for recommendations."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fedrec.serving.schema.fields import is_none


class Weight(BaseModel):
    """An item of the history, and how much lower the score would be without it."""

    item_id: str
    title: str
    weight: float


class Item(BaseModel):
    item_id: str
    title: str
    score: float = Field(
        description="inner product of the item's vector and the question's: a cosine, -1 to 1, or, if a closed form "
        "scores a history as well, or exposure is bounded, at most √3 in size; with `fallback`, the popularity; 1 for "
        "a search result whose title contains the text"
    )
    because: list[Weight] | None = Field(default=None, description="present if `explain` is set")
    columns: dict[str, Any] | None = Field(default=None, description="present if `details` is set")


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
    unknown_ids: list[str] = Field(default_factory=list, description="ids of the question that are not on offer")
    fallback: Literal["popularity"] | None = Field(
        default=None, description="the ranking that was used because no item of the history is known"
    )
    request_id: str = Field(default="", description="to send with feedback")
    arm: str | None = Field(default=None, exclude_if=is_none, description="of the A/B test, if two models answer")


class Answers(BaseModel):
    """In the order of the questions."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"answers": [_ANSWER]}]})

    answers: list[Answer]
