"""The route class of `/v1`: JSON bodies are parsed by pydantic, in a fifth of the time that Python's parser takes for a
vector, and a handler that needs only its body and the context is called without FastAPI's dependency resolution."""

import inspect
import json
from collections.abc import Callable
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedrec.serving.http.context import Context, request_context

MAX_FAULTS = 1_000
"""Faults of a body beyond which they are only counted: describing each takes longer than finding it."""


class _JsonRequest(Request):
    async def json(self) -> Any:
        """Parse the body. Raises `json.JSONDecodeError`, as FastAPI expects, if it is not JSON."""
        body = await self.body()
        try:
            return from_json(body)
        except ValueError as error:
            raise json.JSONDecodeError(str(error), "", 0) from None


class JsonRoute(APIRoute):
    """An async handler that takes (body, context) and returns a `Response` is called directly if its body is valid;
    an invalid body goes through FastAPI, which reports its faults as for every other route."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        if _takes_body_and_context(endpoint):
            self.app = _call_directly(endpoint, self.app)

    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            return await handle(_JsonRequest(request.scope, request.receive))

        return handle_json


def _takes_body_and_context(endpoint: Callable[..., Any]) -> bool:
    annotations = inspect.get_annotations(endpoint)
    is_direct = inspect.iscoroutinefunction(endpoint) and annotations.get("return") is Response
    return is_direct and len(annotations) == 3 and list(annotations.values())[1] is Context


def _call_directly(endpoint: Callable[..., Any], by_fastapi: ASGIApp) -> ASGIApp:
    """Build an ASGI app that validates a JSON body and calls the endpoint; all else is handed to FastAPI."""
    body_type, *_ = inspect.get_annotations(endpoint).values()

    async def answer_request(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.headers.get("content-type") != "application/json":
            await by_fastapi(scope, receive, send)
            return
        try:
            body = await request.body()
        except ClientDisconnect:
            raise HTTPException(400, "the body ended before its announced length; send it again") from None
        try:
            parsed = body_type.model_validate_json(body)
        except ValidationError as error:
            if error.error_count() > MAX_FAULTS:
                raise _count_faults(error.error_count()) from None
            await by_fastapi(scope, _replay(body, receive), send)
            return
        response = await endpoint(parsed, await request_context(request))
        await response(scope, receive, send)

    return answer_request


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that delivers a body again, and then what follows it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


def _count_faults(count: int) -> RequestValidationError:
    summary = f"the body has {count:,} faults; /docs shows what is right"
    return RequestValidationError([{"type": "many_faults", "loc": ("body",), "msg": summary}])
