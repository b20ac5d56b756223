"""Items that are added, and items on offer."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from fedrec.serving.schema.fields import MAX_COLUMNS, RequestModel, Value, Values


class NewItem(RequestModel):
    """An item to add, or to replace the one with the same id."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"title": "Moon Heist", "text": "Three thieves rob a lunar bank.", "columns": {"year": 2026}}]
        },
    )

    title: str = Field(min_length=1, max_length=1000)
    text: str | None = Field(
        default=None, min_length=1, max_length=20_000, description="input of the text encoder; the title if left out"
    )
    columns: dict[str, Value | Values] = Field(default_factory=dict, max_length=MAX_COLUMNS)


class KnownItem(BaseModel):
    """An item on offer, with all its columns."""

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
