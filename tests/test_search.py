"""The search for hyperparameters on validation: the lists, then neighbours of the best, within a number of rounds."""

from collections.abc import Callable
from math import log, log10

import pytest

from fedrec.recsys.closed_form.config import ClosedFormConfig
from fedrec.recsys.closed_form.search import Hyperparameters, SearchSpace, Trial

Objective = Callable[[Hyperparameters], float]


def searched(space: SearchSpace, objective: Objective, trials: tuple[Trial, ...] = ()) -> tuple[Trial, ...]:
    """Search to the end, after some trials."""
    while chosen := space.propose(trials):
        trials = (*trials, Trial(chosen, objective(chosen)))
    return trials


def best_of(trials: tuple[Trial, ...]) -> Hyperparameters:
    return max(trials, key=lambda trial: trial.score).chosen


def after(*scored: tuple[Hyperparameters, float]) -> tuple[Trial, ...]:
    return tuple(Trial(chosen, score) for chosen, score in scored)


def peak(ridge: float, share: float) -> Objective:
    """A hill with its top at a ridge and a share; it falls with the distance in the logarithm, and in the odds'."""

    def objective(chosen: Hyperparameters) -> float:
        odds = [log(one / (1 - one)) for one in (chosen.share, share)]
        return -abs(log(chosen.ridge / ridge)) - abs(odds[0] - odds[1])

    return objective


def test_one_list_is_searched_after_the_other() -> None:
    config = ClosedFormConfig(ridges=(1, 2, 3), decodes=(4, 5), blend_shares=(0.2, 0.4), priors=(0,), refinements=0)
    space = SearchSpace.of(config, blended=True)
    assert space.most == 3 + 1 + 1
    assert space.propose(()) == Hyperparameters(2, 5, 0.4)
    first = (Hyperparameters(2, 5, 0.4), 0.1)
    assert space.propose(after(first)) == Hyperparameters(1, 5, 0.4)
    second = (Hyperparameters(1, 5, 0.4), 0.2)
    assert space.propose(after(first, second)) == Hyperparameters(3, 5, 0.4)
    third = (Hyperparameters(3, 5, 0.4), 0.1)
    assert space.propose(after(first, second, third)) == Hyperparameters(1, 4, 0.4)
    fourth = (Hyperparameters(1, 4, 0.4), 0.3)
    assert space.propose(after(first, second, third, fourth)) == Hyperparameters(1, 4, 0.2)
    assert space.propose(after(first, second, third, fourth, (Hyperparameters(1, 4, 0.2), 0.0))) is None


def test_without_towers_the_share_is_one_and_ids_need_no_decoding() -> None:
    config = ClosedFormConfig(features="ids", ridges=(1, 1, 2), decodes=(4, 5, 6), priors=(0,), refinements=0)
    trials = searched(SearchSpace.of(config, blended=False), lambda chosen: -chosen.ridge)
    assert [trial.chosen for trial in trials] == [Hyperparameters(1, 5, 1.0), Hyperparameters(2, 5, 1.0)]


@pytest.mark.parametrize(("top", "found"), [(1000, 1000), (3, 3), (1e-3, 0.001), (5e4, 4.5e4)])
def test_a_list_is_extended_by_its_own_factor_if_the_best_is_at_its_end(top: float, found: float) -> None:
    space = SearchSpace({"ridge": (0.1, 1.0, 10.0, 3.0), "decode": (1.0,), "share": (1.0,)}, refinements=9)
    trials = searched(space, lambda chosen: -abs(log(chosen.ridge / top)))
    assert best_of(trials).ridge == pytest.approx(found, rel=0.5)
    assert {trial.chosen.decode for trial in trials} == {1.0}
    assert {trial.chosen.share for trial in trials} == {1.0}


def test_shares_go_on_by_the_factor_of_their_odds_and_stay_between_0_and_1() -> None:
    """0.2 and 1/3 are odds of 1 to 4 and 1 to 2: then come 1 to 8, 1 to 16, ..."""
    space = SearchSpace({"ridge": (1.0,), "decode": (1.0,), "share": (0.2, 1 / 3)}, refinements=3)
    shares = [trial.chosen.share for trial in searched(space, lambda chosen: -chosen.share)]
    assert shares == pytest.approx([1 / 3, 0.2, 1 / 9, 1 / 17, 1 / 33], rel=5e-3)
    assert (
        searched(SearchSpace({"ridge": (1.0,), "decode": (1.0,), "share": (0.0, 1.0)}, 3), lambda one: one.share)[2:]
        == ()
    )


def test_ridge_and_share_are_chosen_together() -> None:
    """The ridge that is best beside the middle share is not the best one beside the best share."""

    best_beside = {0.2: 100.0, 0.3: 10.0, 0.5: 1.0, 0.7: 1.0, 0.8: 1.0, 0.127: 100.0}

    def objective(chosen: Hyperparameters) -> float:
        return -0.2 * abs(log10(chosen.ridge / best_beside[chosen.share])) - 3 * abs(chosen.share - 0.2)

    values = {"ridge": (1.0, 10.0, 100.0), "decode": (1.0,), "share": (0.2, 0.3, 0.5, 0.7, 0.8)}
    assert best_of(searched(SearchSpace(values, 0), objective)) == Hyperparameters(1.0, 1.0, 0.2)
    assert best_of(searched(SearchSpace(values, 10), objective)) == Hyperparameters(100.0, 1.0, 0.2)


@pytest.mark.parametrize("refinements", [0, 1, 4, 10])
def test_the_search_is_bounded_and_goes_on_from_any_of_its_trials(refinements: int) -> None:
    values = {"ridge": (1.0, 10.0, 100.0), "decode": (0.1, 1.0), "share": (0.2, 0.5, 0.8)}
    space, objective = SearchSpace(values, refinements), peak(1e9, 0.001)
    trials = searched(space, objective)
    assert len(trials) == space.most == 1 + 2 + 1 + 2 + refinements
    assert len({trial.chosen for trial in trials}) == len(trials)
    for count in range(len(trials)):
        assert searched(space, objective, trials[:count]) == trials


def test_a_penalty_stays_within_what_a_setting_may_be() -> None:
    space = SearchSpace({"ridge": (1e10, 1e11, 1e12), "decode": (1.0,), "share": (1.0,)}, refinements=5)
    assert max(trial.chosen.ridge for trial in searched(space, lambda chosen: chosen.ridge)) == 1e12


def test_a_search_ends_early_on_a_top_between_its_neighbours() -> None:
    space = SearchSpace({"ridge": (1.0, 10.0, 100.0), "decode": (1.0,), "share": (0.2, 0.5, 0.8)}, refinements=10)
    trials = searched(space, peak(10.0, 0.5))
    assert best_of(trials) == Hyperparameters(10.0, 1.0, 0.5)
    assert len(trials) == 5


def test_pulls_are_followed_beyond_their_largest_alone() -> None:
    """From a pull of 0 no factor leads on, and none to it."""
    config = ClosedFormConfig(features="ids", ridges=(1,), priors=(0, 10, 30), refinements=8)
    space = SearchSpace.of(config, blended=False)
    trials = searched(space, lambda chosen: chosen.prior)
    assert [trial.chosen.prior for trial in trials[:5]] == [10, 0, 30, 90, 270]
    strict = searched(SearchSpace.of(config, blended=False), lambda chosen: -chosen.prior)
    assert min(trial.chosen.prior for trial in strict) == 0
    two = ClosedFormConfig(features="ids", ridges=(1,), priors=(0, 10), refinements=8)
    assert max(trial.chosen.prior for trial in searched(SearchSpace.of(two, blended=False), lambda c: c.prior)) == 10
