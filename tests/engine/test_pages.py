"""Pages: who holds them, how pools grow and are cut, and what full contexts take."""

from __future__ import annotations

import numpy as np
import pytest

from lacewing.backends.batch import StepLimits
from lacewing.engine.engine import Engine
from lacewing.engine.pages import Full, Pages, state_budget
from lacewing.options import Sampling
from lacewing.program.states import PAGE, Chunk, PagedState, Part, Window
from tests.engine.mock import FULL, UNIT, VOCAB, WINDOW, MockStep, counting

NBYTES = PAGE * 8  # of a page of the mock's states


def make(states=(FULL, WINDOW), budget=None, **options):
    return Pages(MockStep(states=states, **{"context": 1024} | options), budget)


def test_pools_grow_by_doubling_up_to_the_context():
    pages = make()
    sizes = []
    for _ in range(8):
        pages.take(0, 1)
        sizes.append(pages.step.sizes[0])
    assert sizes == [1, 2, 4, 4, 8, 8, 8, 8]
    with pytest.raises(Full):
        pages.take(0, 1)
    assert pages.used(0) == 8


def test_a_page_is_free_when_nobody_holds_it():
    pages = make()
    taken = pages.take(0, 4)
    pages.share(0, taken[:2])
    pages.drop(0, taken)
    assert pages.used(0) == 2 and not pages.alone(0, taken[3]) and pages.alone(0, taken[0])
    pages.drop(0, taken[:2])
    assert pages.used(0) == 0 and pages.take(0, 3) == [0, 1, 2]  # the lowest first


def test_a_budget_is_for_all_groups_and_free_ends_are_given_back():
    pages = make(budget=10 * NBYTES)
    windows = pages.take(1, 8)
    pages.take(0, 2)
    with pytest.raises(Full):
        pages.take(0, 1)
    pages.drop(1, windows[3:])
    assert len(pages.take(0, 1)) == 1 and pages.step.sizes[1] == 3
    assert sum(pages.step.sizes) <= 10
    with pytest.raises(Full):
        pages.take(0, 6)
    assert len(pages.take(0, 5, force=True)) == 5  # beyond it


def test_memory_that_is_not_there_is_a_pool_that_is_full():
    pages = make(memory=[5, 9])
    assert pages.take(0, 3) and pages.take(0, 2) == [3, 4]  # not twice as many, but as many as are needed
    with pytest.raises(Full):
        pages.take(0, 1)
    assert pages.step.sizes[0] == 5


def test_what_memory_is_planned_for():
    groups = MockStep(states=(FULL, WINDOW, UNIT), context=1024).groups
    one, three = (state_budget(groups, StepLimits(1024, 512, rows)) for rows in (1, 3))
    window, unit = groups[1].live(1024, 512) * groups[1].nbytes, 2 * groups[2].nbytes
    assert one == 8 * NBYTES + window + unit + 8 * groups[2].nbytes
    assert three - one == 2 * (window + unit)  # pages of unlimited reach are competed for


def kv(heads, width, reach=None):
    return PagedState((Part("keys", heads, width), Part("values", heads, width)), reach)


GEMMA_3_270M = (kv(1, 256, Window(512)),) * 15 + (kv(1, 256),) * 3
GPT_OSS_120B = (kv(8, 64, Window(128)), kv(8, 64)) * 18
LLAMA_4_SCOUT = (kv(8, 128, Chunk(8192)),) * 36 + (kv(8, 128),) * 12


@pytest.mark.parametrize(
    ("states", "context", "mib"),
    [(GEMMA_3_270M, 32_768, 120), (GPT_OSS_120B, 131_072, 4.7 * 1024), (LLAMA_4_SCOUT, 131_072, 7.4 * 1024)],
    ids=["gemma", "gpt-oss", "llama 4"],
)
def test_memory_of_a_full_context(states, context, mib):
    """Counted in a run of the true geometry: pools, with what is kept for prompts to come."""
    step = MockStep(counting, chunk=512, context=context, states=states)
    engine = Engine(step, VOCAB, context)
    most = []
    progress = lambda *_: most.append(step.state_bytes)  # noqa: E731
    ids = np.random.default_rng(0).integers(0, VOCAB, context - 3).tolist()
    said = list(engine.generate(ids, Sampling(temperature=0), progress=progress, marks=(1000,)))
    assert len(said) == 4 and [token.id for token in said] == [(ids[-1] + at) % VOCAB for at in range(1, 5)]
    assert max(most) <= mib * 2**20
    assert engine.held(ids) >= context - PAGE
