"""The HTTP API: routes, callers and their tokens, limits, pages."""
