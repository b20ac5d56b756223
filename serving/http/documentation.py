"""The API's documentation at /docs: Swagger UI from this server, so that nobody else learns who reads it.

Its files come with the package fastapi-offline, whose own page holds a script that a policy of contents would refuse.
"""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

PAGE = Path(__file__).parent / "static" / "docs.html"

POLICY = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'"
"""Swagger UI's arrows are images inside its styles, and it styles what it draws."""


def add_documentation(app: FastAPI) -> None:
    """To be called before the page's own files are mounted, which lie one level above these."""
    app.mount("/static/swagger", StaticFiles(packages=[("fastapi_offline", "static")]))

    @app.get("/docs", include_in_schema=False)
    def docs() -> FileResponse:
        return FileResponse(PAGE, headers={"content-security-policy": POLICY})
