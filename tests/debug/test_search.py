"""The search: minimal for monotone oracles, bounded, and honest about oracles that contradict themselves."""

import math
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainbrr_debug.search import all_minimal, bound, ddmin, fewest_that_heal, one_that_heals, shortest_interval

SIZES = st.integers(1, 12)


@st.composite
def monotone(draw):
    """Items, and the alternatives of which any one fully present fails."""
    n = draw(SIZES)
    culprits = draw(st.lists(st.sets(st.integers(0, n - 1), min_size=1), min_size=1, max_size=3))
    return n, [frozenset(c) for c in culprits]


@given(monotone())
@settings(max_examples=200)
def test_the_answer_is_one_minimal_and_within_the_bound(case):
    n, culprits = case
    asked = []

    def fails(items):
        asked.append(items)
        return any(c <= set(items) for c in culprits)

    search = ddmin(range(n), fails)
    assert search.complete and search.inconsistent is None
    assert search.trials == len(asked) <= bound(n)
    assert fails(search.minimal)
    assert not any(fails(tuple(set(search.minimal) - {item})) for item in search.minimal)
    assert list(search.minimal) == sorted(search.minimal)


@given(monotone())
@settings(max_examples=50)
def test_no_set_is_asked_twice_except_the_answer(case):
    n, culprits = case
    asked = []
    search = ddmin(range(n), lambda items: asked.append(items) or any(c <= set(items) for c in culprits))
    repeats = [items for items in set(asked) if asked.count(items) > 1]
    assert repeats == [search.minimal]


@given(SIZES, st.integers(0, 2**32))
@settings(max_examples=200)
def test_any_oracle_comes_to_an_end(n, seed):
    chance = random.Random(seed)
    search = ddmin(range(n), lambda items: chance.choice((True, False, None)))
    assert search.trials <= bound(n)


@given(SIZES, st.integers(0, 2**32))
def test_an_oracle_that_is_not_monotone_is_called_inconsistent_where_it_shows(n, seed):
    """Exactly where, of two sets that were asked about, the smaller failed and the larger that contains it did not."""
    chance, answers = random.Random(seed), {}

    def fails(items):
        return answers.setdefault(frozenset(items), chance.choice((True, False, None)))

    search = ddmin(range(n), fails)
    shows = any(a < b for a in answers for b in answers if answers[a] and answers[b] is False)
    assert (search.inconsistent is not None) is (search.minimal is not None and shows)
    assert search.trials <= bound(n)


@given(SIZES, st.integers(0, 30))
def test_the_budget_holds(n, budget):
    calls = []
    search = ddmin(range(n), lambda items: calls.append(items) or 0 in items, max_trials=budget)
    assert len(calls) == search.trials <= budget
    if not search.complete:
        assert search.minimal is None or 0 in search.minimal


def test_an_oracle_that_changes_its_mind_is_called_inconsistent():
    answers = iter([True, False, True, False])  # all, nothing, the first half, the first half again
    assert ddmin((0, 1), lambda items: next(answers)).inconsistent == "the same set failed and then did not"


def test_an_oracle_that_is_not_monotone_is_called_inconsistent():
    # The whole fails and item 0 fails, but no half does that contains it.
    flipped = ddmin(range(8), lambda items: set(items) == set(range(8)) or set(items) == {0})
    assert "together with others" in flipped.inconsistent


def test_a_healthy_whole_and_a_failing_nothing():
    assert ddmin((1, 2), lambda items: False).minimal is None
    assert ddmin((1, 2), lambda items: None).minimal is None
    assert ddmin((1, 2), lambda items: True).minimal == ()


def test_items_must_have_names_of_their_own():
    with pytest.raises(ValueError, match="1 of 3 items occur twice"):
        ddmin((1, 1, 2), lambda items: True)


def test_two_culprits_are_both_found():
    found = all_minimal(range(8), lambda items: 2 in items or {5, 6} <= set(items))
    assert [search.minimal for search in found] == [(2,), (5, 6), None]


def test_one_that_heals_and_the_fewest_that_do():
    assert one_that_heals("abc", lambda items: False if items == ("b",) else None) == ("b",)
    assert fewest_that_heal("abcd", lambda items: not {"b", "d"} <= set(items)).minimal == ("b", "d")


@given(st.integers(1, 64), st.data())
def test_the_shortest_interval_is_what_is_needed(n, data):
    start = data.draw(st.integers(0, n - 1))
    stop = data.draw(st.integers(start + 1, n))
    found = shortest_interval(n, lambda a, b: a <= start and stop <= b)
    assert (found.start, found.stop) == (start, stop)
    assert found.trials <= 2 * math.log2(n) + 3


def test_no_interval_where_the_whole_does_not_fail():
    assert shortest_interval(5, lambda a, b: None) is None


def test_the_search_needs_no_torch():
    code = "import sys, brainbrr_debug.search; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
