"""Datasets: readers, the public catalogue, the private shard, partitions and node folders. Imports no other room."""
