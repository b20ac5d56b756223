"""Measurements of speed and memory: what `fedrec bench` runs."""
