"""Types of fields that several requests have."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from fedrec.data.ids import LONGEST_ID, id_fault

MAX_COLUMNS = 20


def _check_id(text: str) -> str:
    if fault := id_fault(text):
        raise PydanticCustomError("id", "{fault}", {"fault": fault})
    return text


def _check_encoding(text: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise PydanticCustomError("id", "is not UTF-8")
    return text


def _check_storable(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError("text", "holds the character U+0000, which not every database can store")
    return text


SentId = Annotated[str, AfterValidator(_check_encoding)]
"""An id to look up. Bytes that are not UTF-8 are refused, not replaced."""

ItemId = Annotated[
    str,
    Field(min_length=1, max_length=LONGEST_ID, description="no control characters, and neither '.' nor '..'"),
    AfterValidator(_check_id),
]
UserId = ItemId
"""A new id: the same rule for items and users."""

RequestId = Annotated[str, Field(max_length=64), AfterValidator(_check_storable)]


def is_none(value: object) -> bool:
    """Tell whether a field is left out of an answer."""
    return value is None


Date = Annotated[str, Field(max_length=40, pattern=r"^\d{4}-\d{2}(-\d{2}(T[\d:.]*)?)?$")]
"""A date, or its beginning, without a time zone."""

Number = Annotated[float, Field(allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Bound = Number | Date
Value = Annotated[str, Field(max_length=500)] | bool | Whole | Number
Values = Annotated[list[Value], Field(max_length=1000)]


class RequestModel(BaseModel):
    """A request's body: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")
