"""The options of `fedrec data` that choose events, users, items and a split."""

from typing import Annotated, Literal

import typer

Rule = Annotated[
    Literal["published", "leave-one-out", "ratio", "global-time", "cold-items"],
    typer.Option(
        "--split",
        help="Hold out each user's last two events, a share of them, the events after two moments (the one split "
        "without leaks over time), or some items altogether; published: as the dataset's publisher does.",
    ),
]
ColdShare = Annotated[
    float | None,
    typer.Option(help="Share of the items that is cold, with --split cold-items.", show_default="0.1", min=0, max=1),
]
HeldOutShare = Annotated[
    float | None,
    typer.Option(
        help="Share of a user's events for validation, and again for test, with --split ratio.", show_default="0.1"
    ),
]
ValidationFrom = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Nobody trains on events from then on, with --split global-time.",
        show_default="after 80 % of the events",
    ),
]
TestFrom = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Test items are from then on, with --split global-time.",
        show_default="after 90 % of the events",
    ),
]
MinRating = Annotated[float | None, typer.Option(help="Leave out events with a lower rating.", show_default="any")]
Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="Leave out earlier events: ISO date or number.", show_default="all")
]
Until = Annotated[
    str | None, typer.Option(metavar="TIME", help="Leave out events at that time or later.", show_default="all")
]
MaxEvents = Annotated[
    int | None, typer.Option(help="Leave out users with more events, such as bots.", show_default="any number")
]
UserCore = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Leave out users with fewer events, again and again with the items: the iterated k-core.",
        show_default="any",
    ),
]
ItemCore = Annotated[
    int | None,
    typer.Option(min=0, help="Leave out items with fewer events, again and again with the users.", show_default="any"),
]
