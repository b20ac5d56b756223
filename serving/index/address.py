"""Where an index is kept outside of the process: `qdrant:URL`, `qdrant:FOLDER` or `pgvector:URL`."""

import re
from dataclasses import dataclass, field
from importlib.util import find_spec

from fedrec.data.errors import InputError

PACKAGES = {"qdrant": ("qdrant_client",), "pgvector": ("psycopg", "psycopg_pool", "pgvector")}
"""The kinds of services, and the packages that each needs; the extra of fedrec is named like the service."""

_PASSWORD = re.compile(r"(?<=:)[^:/@]+(?=@)|(?<=password=)[^&\s]+")


@dataclass(frozen=True)
class IndexAddress:
    """The address of a service; its text, and its message in any error, is without the password."""

    kind: str  # a key of PACKAGES
    place: str = field(repr=False)  # a URL, which may hold a password, or a folder

    @classmethod
    def parse(cls, text: str) -> "IndexAddress":
        """Parse `KIND:PLACE`. Raises `ValueError` without the text, which may hold a password."""
        kind, _, place = text.partition(":")
        if kind not in PACKAGES or not place:
            raise ValueError(f"write {' or '.join(f'{each}:URL' for each in PACKAGES)}")
        return cls(kind, place)

    def __str__(self) -> str:
        return f"{self.kind}:{self.without_password(self.place)}"

    @property
    def has_password(self) -> bool:
        """True if the address holds a password, which a command line may not."""
        return bool(_PASSWORD.search(self.place))

    def without_password(self, text: str) -> str:
        """Replace passwords in a text, such as a package's message."""
        return _PASSWORD.sub("***", text)

    def require_packages(self) -> None:
        """Raise `InputError` if a package that the service needs is not installed."""
        for package in PACKAGES[self.kind]:
            if find_spec(package) is None:
                raise InputError(
                    f"`index` = {self} needs the package {package}; install it by pip install 'fedrec[{self.kind}]'"
                )
