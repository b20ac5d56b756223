"""Baselines on pooled histories, tuned on validation."""
