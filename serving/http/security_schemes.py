"""How the OpenAPI describes keys and tokens, so that its page, and clients made of it, can send them."""

from typing import Any

from fastapi import FastAPI

SCHEMES = {
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "one of read_keys or admin_keys"},
    "bearer key": {"type": "http", "scheme": "bearer", "description": "the same, as scrapers of /metrics send it"},
    "admin key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "one of admin_keys"},
    "user token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "also in x-user-token"},
}
ANYBODY: list[dict[str, Any]] = [{}, {"key": []}, {"bearer key": []}]
"""Without read keys everybody may ask."""

FOR_ALL = {"security": [*ANYBODY, {"user token": []}]}
FOR_USERS = {"security": [{"user token": []}, {"admin key": []}]}
FOR_ADMINS = {"security": [{"admin key": []}]}
"""For a route's `openapi_extra`."""


def add_security(app: FastAPI) -> None:
    """Describe the schemes in the app's OpenAPI."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        schema = describe()
        schema["components"]["securitySchemes"] = SCHEMES
        schema["security"] = ANYBODY
        return schema

    app.openapi = openapi
