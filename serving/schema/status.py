"""The state of the endpoint, and errors."""

from typing import Literal

from pydantic import BaseModel, Field

from fedrec.serving.schema.fields import is_none


class ModelInfo(BaseModel):
    """The model that answers."""

    model_version: str
    arm: str | None = Field(default=None, exclude_if=is_none, description="of the A/B test, if two models answer")
    items: int
    since: str
    name: str
    recall: float = Field(description="measured share of the nearest 100 items that the index finds")
    mode: Literal["federated", "central"] | None = Field(default=None, description="how it was trained")
    fallback: Literal["popularity"] | None = Field(
        default=None,
        description="the ranking for a question whose history has no known item; null: it is refused",
    )


class Models(BaseModel):
    models: list[ModelInfo]


class Health(BaseModel):
    status: str
    model_version: str | None = None
    items: int | None = None


class FieldError(BaseModel):
    """One fault of a request."""

    field: str
    detail: str


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldError] = Field(default_factory=list)
    state: Literal["loading", "failed"] | None = Field(
        default=None, description="of the model, if none answers yet; otherwise left out"
    )
