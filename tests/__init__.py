"""The laws first, then small cases whose expected value is written as arithmetic, then real processes."""
