"""Aggregation rules that bound what false answers can do to a round."""
