"""`fedrec bench`: the claims of speed and size, as commands that anyone can run."""
