"""Updates in few bits per number, decoded exactly."""
