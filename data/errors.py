"""The error that is shown to the user as it is."""


class InputError(ValueError):
    """A wrong input: one line that names the parameter, file or field, its value, and the remedy."""
