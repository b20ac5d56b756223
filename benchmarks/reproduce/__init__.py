"""Benchmarks from the raw data to a results file: what `fedrec reproduce` runs."""
