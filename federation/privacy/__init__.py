"""Central differential privacy for users: noise, its accounting, and the ledger of a run."""
