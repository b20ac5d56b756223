"""The sub-commands of `fedrec`: each gathers what it was told and calls the room that does the work."""
