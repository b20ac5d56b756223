"""A line of JSON for each request: which route, what came of it, how long it took. Nothing of who asked, or of what."""

import logging

from pythonjsonlogger.json import JsonFormatter


def log_requests() -> None:
    """To standard error, with the warnings of the server itself."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(["levelname", "name", "message"], timestamp=True))
    for name, level in (("fedrec", logging.INFO), ("uvicorn", logging.WARNING)):
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(level)
        logging.getLogger(name).propagate = False
    # Not told in a line, and costly to find out for each (Python's logging HOWTO, "Optimization").
    logging.logThreads = logging.logMultiprocessing = logging.logProcesses = False
