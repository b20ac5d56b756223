"""Feedback of users who consent to its storage, and the tokens by which they access it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from fedrec.serving.schema.fields import ItemId, RequestId, RequestModel, UserId, is_none


class Feedback(RequestModel):
    """A consenting user's action on an item. Sent again, it counts once."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"user": "u-17", "item_id": "50", "kind": "like", "request_id": "", "consent": True}]
        },
    )

    user: UserId
    item_id: ItemId
    kind: Literal["view", "like", "hide"] = Field(
        description="`hide`: never recommend the item again; the others make up the history"
    )
    request_id: RequestId = Field(default="", description="of the answer that showed the item")
    consent: Literal[True] = Field(description="the user has agreed that this is stored here")


class StoredFeedback(BaseModel):
    """Feedback as it is stored."""

    user: str
    item_id: str
    kind: str
    request_id: str
    at: str
    experiment: str | None = Field(default=None, exclude_if=is_none, description="present if two models answer")
    arm: str | None = Field(default=None, exclude_if=is_none, description="the model that had shown the item")


class UserData(BaseModel):
    """All that is stored of a user."""

    user: str
    feedback: list[StoredFeedback]


class Remembered(BaseModel):
    """A user with stored feedback."""

    user: str
    entries: int


class Everybody(BaseModel):
    """Users with stored feedback, in the order of their ids."""

    users: list[Remembered]


class NewToken(RequestModel):
    """The lifetime of a token."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"seconds": 3600}]})

    seconds: int = Field(default=3600, ge=60, le=30 * 24 * 3600, description="until it expires")


class Token(BaseModel):
    """A token lets its holder read, write and erase one user's feedback until it expires."""

    user: str
    token: str = Field(description="to send as `authorization: Bearer …` or `x-user-token`")
    expires: str
