"""`fedrec reproduce`: a benchmark from the raw data to the numbers, in parts that survive an interruption."""
