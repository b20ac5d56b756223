"""Secure aggregation: the server learns the sum over a group of nodes, and no node's own part of it."""
