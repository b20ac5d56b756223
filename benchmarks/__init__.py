"""Benchmarks and what comes of them: results, reports and measurements of speed. A wheel holds none of it."""
