"""How bodies are read: by pydantic's JSON parser, which takes a fifth of the time that Python's takes for a vector."""

import json
from collections.abc import Callable
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json


class _Body(Request):
    async def json(self) -> Any:
        """Raises `json.JSONDecodeError`, as FastAPI expects where a body is no JSON."""
        body = await self.body()
        try:
            return from_json(body)
        except ValueError as error:
            raise json.JSONDecodeError(str(error), "", 0) from None


class Route(APIRoute):
    """A route that reads its body so."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()

        async def read_and_handle(request: Request) -> Response:
            return await handle(_Body(request.scope, request.receive))

        return read_and_handle
