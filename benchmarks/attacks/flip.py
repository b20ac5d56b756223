"""Malicious users send the opposite of what they learn."""

from benchmarks.attacks.attack import Attack, Bar, Case
from benchmarks.attacks.crafting import flip_signs
from benchmarks.attacks.defences import GEOMETRIC_MEDIAN, OFF, PRIVATE, Defence, over_users
from benchmarks.attacks.poisoned_run import HARM, PHONES, Plot, PoisonedNode, draw_liars, measure_harm
from benchmarks.attacks.scoring import Figures
from benchmarks.attacks.world import Size, World


def measure(world: World, case: Case) -> Figures:
    """Train with so many users who work against the others, and measure the quality lost."""
    liars, shard = draw_liars(world.users, float(case.options["share"]), world.seed), world.dataset.shard
    return measure_harm(
        world,
        Plot(case, PHONES, liars),
        lambda config: [world.node(config)],
        lambda config: [PoisonedNode(shard, world.setup(config), liars=liars, lie=flip_signs)],
    )


def cases(size: Size) -> list[Case]:
    """List the shares of malicious users, and the defences."""

    def case(share: float, defence: Defence = OFF, control: bool = False) -> Case:
        return Case(f"{share:.0%} of the users".replace("%", " %"), defence, {"share": share}, control)

    plain = [case(0.01), case(0.05), case(0.5, control=True)]
    return [*plain, *(case(0.05, defence) for defence in (PRIVATE, over_users(GEOMETRIC_MEDIAN)))]


FLIP = Attack(
    name="flip",
    title="Changes with the opposite sign",
    attacker="Some users who want the model to be bad. They have data of their own, and send what they like within the "
    "clip.",
    does="They compute what they would learn together, and send the opposite, scaled to the clip.",
    conclusion="Few users cannot spoil a run by this: honest changes are clipped to the same length, and are many. "
    "Half of the users can.",
    columns=HARM[2:],
    bar=Bar("ndcg_lost", 0.2),
    cases=cases,
    measure=measure,
)
