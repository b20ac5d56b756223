"""A small federation for the lab of attacks, with random texts."""

from dataclasses import replace
from pathlib import Path

from benchmarks.attacks.attack import Attack, Case
from benchmarks.attacks.scoring import Figures
from benchmarks.attacks.world import QUICK, World
from benchmarks.speed import worlds
from fedrec.data.dataset import Dataset
from fedrec.data.synthetic.random_tables import SyntheticConfig
from tests.support.toy_world import small_config

SETTINGS = {
    "item_rank": 16,
    "user_rank": 16,
    "history": 16,
    "negatives": 64,
    "clients_per_round": 32,
    "feature_width": 256,
}


def small_world(folder: Path, **size: int) -> World:
    """120 users and 300 items, with 20 events each on average; of a size that takes seconds."""
    config = small_config(**SETTINGS)
    data = folder / "prepared"
    if not data.exists():
        worlds.make_world(SyntheticConfig(users=120, items=300, interactions=2400, seed=0), folder, config)
    return World(Dataset.open(data), config, replace(QUICK, **size), folder / "lab")


def case_of(attack: Attack, world: World, about: str, defence: str = "none") -> Case:
    """Return the case of an attack by its words."""
    found = [case for case in attack.cases(world.size) if case.about == about and case.defence.name == defence]
    assert len(found) == 1, (about, defence, [(case.about, case.defence.name) for case in attack.cases(world.size)])
    return found[0]


def measured(attack: Attack, world: World, about: str, defence: str = "none") -> Figures:
    return attack.measure(world, case_of(attack, world, about, defence))
