"""Asynchronous rounds: the server steps when a buffer of answers is full, under a simulated fleet of devices."""
