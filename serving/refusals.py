"""The error for questions that cannot be answered."""


class UnanswerableError(Exception):
    """A question that is well formed and still cannot be answered: which field, and why."""

    def __init__(self, field: str, detail: str, status: int = 422) -> None:
        super().__init__(f"{field}: {detail}")
        self.field, self.detail, self.status = field, detail, status
