"""The contract of a node: what it answers, checked before the model sees data, whatever a server asks."""
