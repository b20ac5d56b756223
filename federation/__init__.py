"""How many learn together: orders go out, sums come back. Imports recsys and data; only the front door imports it."""
