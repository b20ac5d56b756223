"""`fedrec attack`: attacks on a federation over one dataset, in the order of the registry."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.attacks.laboratory import changed_settings, failed_controls, result_of, run_cases
from benchmarks.attacks.registry import attacks_named
from benchmarks.attacks.results import AttackResult, CaseResult, save_result
from benchmarks.attacks.world import FULL, QUICK, World
from fedrec import console
from fedrec.data.errors import InputError
from fedrec.datasets import load_dataset
from fedrec.federation.config import RunConfig


@dataclass(frozen=True)
class Experiment:
    """Which attacks are run, on what, and where their figures go."""

    name: str
    data: str  # a dataset's name, or a prepared folder
    config: RunConfig
    quick: bool
    seed: int
    out: Path
    results: Path

    @property
    def command(self) -> str:
        """The command that repeats it."""
        words = [f"fedrec attack {self.name} --data {Path(self.data).name}"]
        words += [f"--set {name}={value}" for name, value in changed_settings(self.config).items()]
        words += ["--quick"] * self.quick + [f"--seed {self.seed}"] * bool(self.seed)
        return " ".join(words)


def run(experiment: Experiment) -> list[AttackResult]:
    """Run the attacks, and write the figures after each case.

    Raises `InputError` if a control fails: then an attack that should succeed does not, and its table proves nothing.
    """
    if experiment.config.held_out != 2:
        raise InputError(f"setting held_out = {experiment.config.held_out}: the lab measures held-out items; use 2")
    world = World(
        load_dataset(experiment.data),
        experiment.config,
        QUICK if experiment.quick else FULL,
        experiment.out,
        experiment.seed,
    )
    results, failed = [], []
    for attack in attacks_named(experiment.name):
        done: list[CaseResult] = []
        for case in run_cases(attack, world, console.status):
            done.append(case)
            save_result(experiment.results, result_of(attack, world, experiment.command, done))
        results.append(result_of(attack, world, experiment.command, done))
        failed += [f"{attack.name}: {case.about}" for case in failed_controls(attack, done)]
    if failed:
        raise InputError(f"a control failed ({failed[0]}): the attack is too weak here; use more data, or no --quick")
    return results
