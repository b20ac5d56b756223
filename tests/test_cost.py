"""How much work a question is counted as."""

import pytest

from fedrec.serving.cost import question_cost
from fedrec.serving.schema import Question

TASTE = [f"film-{number}" for number in range(50)]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"query": "soup"}, 1),
        ({"vector": [1.0]}, 1),
        ({"history": TASTE}, 1),
        ({"user": "ann"}, 1),
        ({"history": TASTE, "k": 999}, 1),
        ({"history": TASTE, "k": 1000}, 1 + 1),
        ({"history": TASTE, "k": 10, "offset": 4_990}, 1 + 5),
        ({"history": TASTE, "explain": True}, 1 + 10),
        ({"history": TASTE[:6], "explain": True}, 1 + 2),
        ({"history": TASTE * 3, "explain": True}, 1 + 10),
        ({"user": "ann", "explain": True}, 1 + 10),
        ({"history": TASTE, "diversity": 0.5}, 1 + 1),
        ({"history": TASTE, "diversity": 0.5, "k": 200, "offset": 100}, 1 + 1 + 3),
        ({"query": "soup", "filters": {"year": {"min": 1990}, "genres": ["Drama"], "colour": True}}, 1),
        ({"query": "soup", "filters": {"year": [1990] * 1000, "genres": ["Drama"] * 1000}}, 1 + 2),
        ({"query": "soup", "exclude": TASTE * 20, "include": TASTE * 20}, 1 + 2),
        (
            {"history": TASTE * 20, "exclude": TASTE * 20, "diversity": 1, "k": 1000, "explain": True},
            1 + 1 + 2 + 11 + 20,
        ),
    ],
)
def test_a_plain_question_costs_one_and_each_thing_beyond_it_more(asked: dict, expected: int) -> None:
    assert question_cost(Question(**asked)) == expected
