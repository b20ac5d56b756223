"""The rule for names that become a part of a path: names of datasets, benchmarks and variants."""

from fedrec.data.errors import InputError
from fedrec.data.ids import id_fault

LONGEST_NAME = 128
"""The maximum number of bytes of a name: with a prefix and a suffix it is still valid in every file system."""


def name_fault(name: str) -> str | None:
    """Describe why a text is not a plain part of a path, as the end of a sentence about it; None if it is one."""
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


def plain_name(name: str, place: str) -> str:
    """Return the name if it is a plain part of a path. Raises `InputError`, which begins with `place`."""
    if fault := name_fault(name):
        raise InputError(f"{place} {name!r} {fault}; a name is one plain part of a path, such as 'shop-2025'")
    return name
