"""Keys and tokens in the OpenAPI, so that its page and generated clients can send them."""

from typing import Any

from fastapi import FastAPI

SCHEMES = {
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "one of read_keys or admin_keys"},
    "bearer key": {
        "type": "http",
        "scheme": "bearer",
        "description": "the same keys, as scrapers of /metrics send them",
    },
    "admin key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "one of admin_keys"},
    "user token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "also in x-user-token"},
}
ANYBODY: list[dict[str, Any]] = [{}, {"key": []}, {"bearer key": []}]
"""Security of the read routes: without read keys, none is needed."""

FOR_ALL = {"security": [*ANYBODY, {"user token": []}]}
FOR_USERS = {"security": [{"user token": []}, {"admin key": []}]}
FOR_ADMINS = {"security": [{"admin key": []}]}
"""Values of a route's `openapi_extra`."""


def add_security_schemes(app: FastAPI) -> None:
    """Describe the schemes in the app's OpenAPI."""
    describe = app.openapi

    def openapi_schema() -> dict[str, Any]:
        schema = describe()
        schema["components"]["securitySchemes"] = SCHEMES
        schema["security"] = ANYBODY
        return schema

    app.openapi = openapi_schema
