"""The sub-commands of `fedrec`: each reads its options, calls the library, and prints the result."""
