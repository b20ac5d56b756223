"""The Flower app bundle, and the processes that run a node."""
