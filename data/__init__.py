"""What is given: raw files, the public catalogue, the private histories. Imports nothing of ours."""
