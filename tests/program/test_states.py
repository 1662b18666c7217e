"""Groups of states, and how many pages a sequence needs at once."""

import pytest

from lacewing.program.states import PAGE, Chunk, FixedState, Group, Part, Window, groups_of
from tests.paged import paged


def test_states_of_equal_shape_and_reach_form_a_group():
    full, local, conv = paged(2, 4, 4), paged(2, 4, 4, Window(64)), FixedState((("conv", (2, 8)),))
    groups = groups_of([local, full, local, conv, full, local, conv])
    assert groups == (Group(local, (0, 2, 5)), Group(full, (1, 4)), Group(conv, (3, 6)))
    assert [group.nbytes for group in groups] == [3 * PAGE * 2 * 2 * 8, 2 * PAGE * 2 * 2 * 8, 2 * 4 * 16]
    assert [group.paged for group in groups] == [True, True, False]


@pytest.mark.parametrize(("dtype", "nbytes"), [("f16", 128), ("f32", 256), ("q8_0", 68)])
def test_bytes_of_a_row(dtype, nbytes):
    assert Part("keys", 3, 64, dtype).row_bytes == nbytes
    assert Part("keys", 3, 64, dtype).page_bytes == 128 * 3 * nbytes


@pytest.mark.parametrize("reach", [None, Window(1), Window(100), Window(128), Window(129), Chunk(128), Chunk(256), Chunk(100)])
@pytest.mark.parametrize("run", [1, 7, 130, 512])
def test_live_pages_are_enough_and_not_one_too_many(reach, run):
    """Beside every run there can be, counted page by page."""
    state, context = paged(1, 4, 4, reach), 1024
    most = 0
    for first in range(context - run + 1):
        low = min(state.first_seen(position) for position in range(first, first + run))
        most = max(most, (first + run - 1) // PAGE - low // PAGE + 1)
    assert most <= state.live_pages(context, run) <= most + 1


def test_what_a_sequence_takes():
    states = [paged(1, 64, 64), paged(1, 64, 64, Window(128)), FixedState((("conv", (2, 8)),))]
    page = 128 * 2 * 2 * 64
    assert [group.live(1024, 128) * group.nbytes for group in groups_of(states)] == [8 * page, 3 * page, 2 * 64]
