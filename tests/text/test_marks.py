"""The first of several marks, and how much of the end of a text may become one."""

from hypothesis import given
from hypothesis import strategies as st

from lacewing.text.marks import first_of, partial

MARKS = st.lists(st.text("ab<", min_size=1, max_size=4), max_size=4).map(tuple)
TEXT = st.text("ab<x", max_size=20)


@given(TEXT, MARKS)
def test_the_first_mark_and_of_those_there_the_longest(text, marks):
    found = [(at, -len(mark), mark) for mark in marks if (at := text.find(mark)) >= 0]
    at, _, mark = min(found, default=(-1, 0, ""))
    assert first_of(text, marks) == (at, mark)


@given(TEXT, MARKS)
def test_the_longest_end_that_may_become_a_mark(text, marks):
    counts = [count for count in range(1, len(text) + 1) for mark in marks if mark.startswith(text[-count:]) and count < len(mark)]
    assert partial(text, marks) == max(counts, default=0)
