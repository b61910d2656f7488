"""Evenly spaced items: all of few, and of many a few from the first to the last at nearly equal steps."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from idif.data.spacing import evenly_spaced


@given(count=st.integers(1, 5000), most=st.integers(1, 500))
def test_the_steps_between_chosen_places_differ_by_one_at_most(count: int, most: int) -> None:
    chosen = evenly_spaced(range(count), most)
    assert len(chosen) == min(count, most)
    assert chosen[0] == 0
    assert most == 1 or chosen[-1] == count - 1
    steps = [after - before for before, after in pairwise(chosen)]
    assert not steps or min(steps) >= max(1, max(steps) - 1)


@given(items=st.lists(st.integers(), max_size=50), more=st.integers(0, 50))
def test_items_that_are_no_more_than_wanted_are_all_chosen(items: list[int], more: int) -> None:
    assert evenly_spaced(items, len(items) + more) == items


def test_a_few_of_many_keep_their_order() -> None:
    assert evenly_spaced("abcdefghi", 3) == ["a", "e", "i"]
    assert evenly_spaced("abcdefghi", 1) == ["a"]
    assert evenly_spaced(range(10, 20), 4) == [10, 13, 16, 19]
