"""Results of parts that were made on several machines: each adds its own to the file."""

from collections.abc import Mapping

from benchmarks.reproduce.collect import GROUPS, with_ratio
from benchmarks.reproduce.jobs import Figures

SAME = ("name", "split", "data", "seeds")
"""What two machines must agree on, and the preset's settings."""

OWN = ("parts", "baselines", "alone", "personal", "cold")
"""Of the preset: which parts it asks for and what they try, which the parts themselves tell."""

MADE_ON = ("machine", "versions")
OF_FIRST = (*MADE_ON, "elsewhere")
"""What is told of the machine that the file began on: the others stand `elsewhere`."""


def merge_results(told: Figures, found: Figures, elsewhere: Mapping[str, str]) -> Figures | None:
    """What was found here added to what a file tells; `elsewhere` are the parts that only the file tells of, and their
    models. A model that was made again here takes the place of the file's. None where the two are not of the same
    benchmark, or where a model's seeds were made in both places.

    Users' ranks do not leave a machine, so models of two machines are not compared user by user.
    """
    made_here = {name for group in GROUPS for name in found.get(group, {})} | found.keys()
    differ = any(told.get(key) != found.get(key) for key in SAME) or _asked(told) != _asked(found)
    if differ or not found["part_seconds"] or made_here & set(elsewhere.values()):
        return None
    groups = {group: told.get(group, {}) | found.get(group, {}) for group in GROUPS if group in told or group in found}
    seconds = {name: told["part_seconds"][name] for name in elsewhere} | found["part_seconds"]
    made = {"parts": list(found["part_seconds"]), **{key: found[key] for key in MADE_ON}}
    others = [
        {**entry, "parts": parts}
        for entry in told.get("elsewhere", [])
        if (parts := [name for name in entry["parts"] if name in elsewhere])
    ]
    of_others = {name for entry in others for name in entry["parts"]}
    first = told if elsewhere.keys() - of_others else found  # where all of the first's parts were made again
    both = {
        **told,
        **{name: found[name] for name in found if name not in OF_FIRST},
        **{key: first[key] for key in MADE_ON},
        "elsewhere": others if first is found else [*others, made],
        "wall_seconds": round(sum(seconds.values()), 1),
        "part_seconds": seconds,
    }
    if "variants" in told:
        variants = {v["name"]: v for v in (*told["variants"], *found["variants"])}
        return both | {"variants": [variants[name] for name in told["preset"]["variant"] if name in variants]}
    still = [entry for entry in told["comparisons"] if not made_here & {entry["a"], entry["b"]}]
    return with_ratio(
        both
        | {
            **groups,
            "comparisons": [*still, *found["comparisons"]],
            "by_history": _by_history(told["by_history"], found["by_history"]),
        }
    )


def _asked(result: Figures) -> Figures:
    return {key: value for key, value in result["preset"].items() if key not in OWN}


def _by_history(told: list[Figures], found: list[Figures]) -> list[Figures]:
    """The groups are those of the users' histories, so they are the same wherever they were made."""
    mine = {group["group"]: group for group in found}
    return [
        {
            key: {**value, **mine[group["group"]][key]} if isinstance(value, dict) and group["group"] in mine else value
            for key, value in group.items()
        }
        for group in told
    ]
