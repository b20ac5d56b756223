"""A setting whose value names a row of a table, so that a new row is a new choice."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema


@dataclass(frozen=True, eq=False)
class KeyOf:
    """The annotation of a setting that holds one of a table's keys, as the table is when the value is checked."""

    table: Mapping[str, Any]

    def check(self, name: str) -> str:
        """Return the name. Raises pydantic's error, which lists the table, if no row has it."""
        if name not in self.table:
            *others, last = (repr(key) for key in self.table)
            listed = f"{', '.join(others)} or {last}" if others else last
            raise PydanticCustomError("not_in_table", "Input should be {listed}", {"listed": listed})
        return name

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.table)}
