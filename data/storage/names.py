"""The rule for names that become a part of a path: of datasets, benchmarks and variants."""

from fedrec.data.errors import InputError
from fedrec.data.ids import id_fault

LONGEST_NAME = 128
"""Bytes of a name at most: with what is put before and after it, a file system takes it."""


def name_fault(name: str) -> str | None:
    """Say what makes a text no plain part of a path, as the end of a sentence about it; None if it is one."""
    if fault := id_fault(name):
        return fault.removesuffix(", which no URL can carry")
    if "/" in name or "\\" in name:
        return "holds a slash or a backslash"
    if name[0] in ".-":
        return f"begins with {name[0]!r}"
    if name != name.strip():
        return "begins or ends with a space"
    try:
        return f"is longer than {LONGEST_NAME} bytes" if len(name.encode()) > LONGEST_NAME else None
    except UnicodeEncodeError:
        return "is not Unicode text"


def plain_name(name: str, said: str) -> str:
    """Return the name if it is a plain part of a path. Raises `InputError`, in which `said` says where it stands."""
    if fault := name_fault(name):
        raise InputError(f"{said} {name!r} {fault}; a name is one plain part of a path, such as 'shop-2025'")
    return name
