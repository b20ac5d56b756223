"""The closed form: ridge regression of the next item on a decayed history, from sums of per-user statistics."""
