"""What gives items frozen vectors: sentence encoders, image encoders, vectors from a file, several of them joined."""
