"""The bars of the project's style, over the rooms and the command line."""

import pytest

from benchmarks.style import ROOMS, ROOT, begins_with_verb, measure, report

LONGEST = 300
FILES = [path.relative_to(ROOT) for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def test_docstrings_begin_with_a_verb() -> None:
    style = measure()
    assert style.verb_share >= 0.8, style.not_verbs


def test_names_of_functions_have_two_words() -> None:
    assert measure().one_word_share <= 0.45


def test_functions_are_short() -> None:
    style = measure()
    assert style.median_length <= 8
    assert style.p90_length <= 20


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_are_short(path: str) -> None:
    assert len((ROOT / path).read_text("utf-8").splitlines()) <= LONGEST


def test_benchmarks_have_the_same_style() -> None:
    style = measure(["benchmarks"])
    print(report("benchmarks", style), report("tests", measure(["tests"])), sep="\n")
    assert style.verb_share >= 0.8, style.not_verbs
    assert style.one_word_share <= 0.45
    assert style.p90_length <= 20
    assert style.longest_file[1] <= LONGEST


@pytest.mark.parametrize(
    ("docstring", "verb"),
    [
        ("Return the items.", True),
        ("Rank all users.", True),
        ("Stop.", True),
        ("Clip, round and add the updates.", True),
        ("Raises `InputError`.", False),
        ("Share of the items that are cold.", False),
        ("Items by their text.", False),
        ("Rank, if there is one.", False),
        ("`Matrix, The (1999)` → title.", False),
        ("(b,) of bool.", False),
    ],
)
def test_a_noun_is_no_verb(docstring: str, verb: bool) -> None:
    assert begins_with_verb(docstring) is verb
