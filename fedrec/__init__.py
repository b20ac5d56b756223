"""The front door: the command line. Nobody imports it."""
