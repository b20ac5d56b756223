"""Federated training: orders, updates, methods, the server's optimisers, the loop over Flower's `Grid`. Imports recsys
and data.
"""
