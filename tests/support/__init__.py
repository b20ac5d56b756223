"""What several tests need: the toy world, networks that fail, servers and federations to test against."""
