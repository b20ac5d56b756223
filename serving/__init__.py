"""The HTTP endpoint: index, engine, live catalogue, routes. Imports recsys and data."""
