"""The access log: a line of JSON for each request with route, status and time, but nothing of the caller or content."""

import logging

from pythonjsonlogger.json import JsonFormatter


def log_requests() -> None:
    """Log requests, and the server's own warnings, to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(["levelname", "name", "message"], timestamp=True))
    for name, level in (("fedrec", logging.INFO), ("uvicorn", logging.WARNING)):
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(level)
        logging.getLogger(name).propagate = False
