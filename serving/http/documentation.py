"""The API's documentation at /docs: Swagger UI, served from here so that no other server learns of its readers.

Its files come with the package fastapi-offline, whose own page contains a script that the content-security policy would
block.
"""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

PAGE = Path(__file__).parent / "static" / "docs.html"

POLICY = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'"
"""Swagger UI has images inside its styles, and sets inline styles."""


def add_documentation(app: FastAPI) -> None:
    """Add /docs; call it before /static is mounted, which would hide /static/swagger."""
    app.mount("/static/swagger", StaticFiles(packages=[("fastapi_offline", "static")]))

    @app.get("/docs", include_in_schema=False)
    def docs_page() -> FileResponse:
        return FileResponse(PAGE, headers={"content-security-policy": POLICY})
