"""Readers of published datasets and of a user's own tables: each gives interactions and items."""
