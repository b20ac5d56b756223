"""Local training: losses, sampling of negatives, and the methods that a federation can train."""
