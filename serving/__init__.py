"""How it is asked: an index over item vectors behind an HTTP endpoint. Imports recsys and data; never federation."""
