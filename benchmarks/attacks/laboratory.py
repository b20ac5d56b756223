"""The laboratory: run the cases of an attack, each once, and collect their figures.

A case's record is in the lab's folder as soon as it is done, so that an interrupted attack resumes with the next one. A
case that was run with another key, other data, settings, size or seed is run again.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.attacks.attack import Attack, Case
from benchmarks.attacks.results import AttackResult, CaseResult
from benchmarks.attacks.world import World
from benchmarks.results_file import Environment
from fedrec.data.fingerprint import fingerprint_of
from fedrec.data.storage.json_file import save_json
from fedrec.data.storage.locks import in_use
from fedrec.federation.config import RunConfig, to_flat
from fedrec.federation.messages import OrderRefused
from fedrec.recsys.environment import environment_info

Report = Callable[[str], None]
"""A function that shows a line of progress."""


def run_cases(attack: Attack, world: World, report: Report) -> Iterator[CaseResult]:
    """Run the cases of an attack that have not been run, and yield the figures of all."""
    cases = attack.cases(world.size)
    for number, case in enumerate(cases, start=1):
        report(f"{attack.name} {number}/{len(cases)}  {case.about}, {case.defence.name}")
        yield run_case(attack, case, world)


def result_of(attack: Attack, world: World, command: str, cases: Sequence[CaseResult]) -> AttackResult:
    """Put the figures of cases together with what they were measured on."""
    return AttackResult(
        name=attack.name,
        command=command,
        data=world.dataset.manifest["name"],
        users=world.users,
        items=len(world.dataset.catalogue),
        seed=world.seed,
        size=asdict(world.size),
        environment=Environment.model_validate(environment_info()),
        cases=tuple(cases),
    )


def run_case(attack: Attack, case: Case, world: World) -> CaseResult:
    """Run a case, or read its record if it was run before."""
    path = record_of(attack, case, world)
    if path.is_file():
        return CaseResult.model_validate_json(path.read_text("utf-8"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with in_use(path.parent):
        result = _measure(attack, case, world)
        save_json(path, result.to_json())
    return result


def record_of(attack: Attack, case: Case, world: World) -> Path:
    """Return the file of a case's record. Its name is a hash of everything that decides the figures."""
    key = json.dumps(_key(attack, case, world), sort_keys=True)
    return world.folder / attack.name / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def _key(attack: Attack, case: Case, world: World) -> dict[str, Any]:
    """Return everything that decides a case's figures."""
    return {
        "attack": attack.name,
        "case": case.key,
        "settings": to_flat(world.config),
        "size": asdict(world.size),
        "seed": world.seed,
        "data": [world.dataset.catalogue.fingerprint, fingerprint_of(world.dataset.folder)],
    }


def _measure(attack: Attack, case: Case, world: World) -> CaseResult:
    started = time.process_time()
    figures: dict[str, float] = {}
    refused = ""
    try:
        figures = {name: round(value, 4) for name, value in attack.measure(world, case).items()}
    except OrderRefused as refusal:
        refused = str(refusal)
    seconds = round(time.process_time() - started, 1)
    return CaseResult(
        about=case.about,
        defence=case.defence.name,
        control=case.control,
        options=dict(case.options),
        figures=figures,
        refused=refused,
        seconds=seconds,
    )


def failed_controls(attack: Attack, cases: Sequence[CaseResult]) -> Sequence[CaseResult]:
    """Return the controls in which the attack did not succeed: then its other rows prove nothing."""
    return [case for case in cases if case.control and not (case.figures and attack.succeeds(case.figures))]


def changed_settings(config: RunConfig) -> dict[str, Any]:
    """Return the settings that differ from the product's defaults."""
    defaults = to_flat(RunConfig())
    return {name: value for name, value in to_flat(config).items() if value != defaults[name]}
