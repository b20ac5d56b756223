"""The one error that is meant for a person's eyes."""


class InputError(ValueError):
    """Something given from outside is wrong: one line that names it, its value, and the remedy."""
