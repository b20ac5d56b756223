"""Options and arguments of several commands, declared once."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fedrec.exports.hub import local_folder

Json = Annotated[bool, typer.Option("--json", help="Answer in JSON on stdout, for programs.")]


def optional_folder(run: Path | None) -> Path | None:
    """Return the folder of a run, if one is named; one on the hub is downloaded first."""
    return None if run is None else local_folder(run)


_RUN = typer.Argument(
    metavar="RUN", help="A run's folder, as `fedrec train` writes it, or hf://USER/NAME.", callback=optional_folder
)
RunFolder = Annotated[Path, _RUN]
OptionalRunFolder = Annotated[Path | None, _RUN]
Data = Annotated[
    Path | None, typer.Option(help="The prepared folder.", show_default="var/prepared/, the name in the card")
]

OtherHistories = Annotated[
    bool, typer.Option("--other-histories", help="Accept other histories than the run was trained on.")
]
Users = Annotated[
    list[str] | None, typer.Option("--user", metavar="ID", help="A user's id in DATA; repeatable.", show_default=False)
]


class Protocol(StrEnum):
    """The items that a held-out item is ranked against."""

    full = "full"
    sampled = "sampled-99"
    cold = "cold"

    @property
    def against(self) -> str:
        """The protocol in words."""
        return {
            Protocol.full: "against the full catalogue",
            Protocol.sampled: "against 99 sampled items (to compare with papers only)",
            Protocol.cold: "against the cold items alone",
        }[self]


Separator = Annotated[
    str | None,
    typer.Option(help="Separator of CSV files: one character, or tab.", show_default="a comma; a tab in .tsv"),
]
Encoding = Annotated[str, typer.Option(help="Encoding of CSV and JSON files, such as cp1252 or utf-16.")]
Quote = Annotated[str, typer.Option(help="Quotation mark around CSV fields; none: quotation marks are plain text.")]
BadRows = Annotated[
    float,
    typer.Option(
        help="The share of a file's rows that may be bad (no id, no time, a broken line): they are left out, counted, "
        "and the first is shown. More are refused.",
        min=0,
        max=1,
    ),
]
EventColumn = Annotated[
    str | None, typer.Option(help="In INTERACTIONS: the column of the kinds of events.", show_default="none")
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse if anything would be left out that no option asks for.")]
