"""The fairness report of a run, alone or beside that of another run on the same users."""

from dataclasses import dataclass
from typing import Any

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.evaluation import check_dataset
from fedrec.recsys.evaluation.fairness import FairnessReport, GroupDifference, compare_groups, report_fairness
from fedrec.recsys.evaluation.ranking import Ranking
from fedrec.run import Run

SPLIT = "test"


@dataclass(frozen=True)
class Fairness:
    """A run's report; with another run, that run's, and the difference between the two for each group."""

    report: FairnessReport
    against: FairnessReport | None = None
    differences: tuple[GroupDifference, ...] = ()

    def as_record(self) -> dict[str, Any]:
        """Return the reports as plain values, for JSON."""
        record = self.report.as_record()
        if self.against is None:
            return record
        differences = [vars(difference) for difference in self.differences]
        return record | {"against": self.against.as_record(), "differences": differences}


def measure_fairness(
    ranking: Ranking, against: Run | None, dataset: Dataset, protocol: str = "full", other_histories: bool = False
) -> Fairness:
    """Report on a ranking of the test items of a dataset and, with another run, on that run's ranking of the same.

    Raises `InputError` if the other run is of other items, another split or other histories, or was trained on the
    test items.
    """
    report = report_fairness(ranking, dataset, SPLIT)
    if against is None:
        return Fairness(report)
    try:
        check_dataset(against.folder, against.card, dataset, other_histories)
    except InputError as error:
        raise InputError(f"`against`: {error}") from error
    theirs = against.rank_held_out(dataset, protocol, SPLIT)
    differences = compare_groups(ranking, theirs, dataset, SPLIT)
    return Fairness(report, report_fairness(theirs, dataset, SPLIT), differences)
