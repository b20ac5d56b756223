"""Search over item vectors: exact or inverted, with filters and diversity."""
