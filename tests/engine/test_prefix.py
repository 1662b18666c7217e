"""What is run again of a prompt that begins as an earlier one, by the kind of state."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lacewing.engine.engine import Engine
from lacewing.options import Sampling
from lacewing.program.states import PAGE, Chunk, FixedState, PagedState, Part, Window
from tests.engine.mock import FULL, KINDS, UNIT, VOCAB, WINDOW, MockStep, hashed

GREEDY = Sampling(temperature=0, max_tokens=5)
IDS = np.random.default_rng(1).integers(0, VOCAB, 3000).tolist()
OTHER = np.random.default_rng(2).integers(0, VOCAB, 3000).tolist()


def make(kind, context=2048, **options):
    step = MockStep(hashed, **{"chunk": 512, "context": context, "states": KINDS.get(kind, kind)} | options)
    return Engine(step, VOCAB, context)


def ask(engine, ids, **options):
    """How many ids were found."""
    stream = engine.generate(ids, GREEDY, **options)
    said = [token.id for token in stream]
    assert said == [token.id for token in make((FULL,)).generate(ids, GREEDY)] or engine.step.groups[0].state != FULL
    return stream.stats.reused_tokens, said


@pytest.mark.parametrize("kind", KINDS)
def test_a_conversation_goes_on_where_it_ended(kind):
    engine = make(kind)
    _, said = ask(engine, IDS[:700])
    assert ask(engine, [*IDS[:700], *said, 3, 4])[0] == 704  # the last token of the answer was never run


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("full", 650),
        ("windows", 650),
        ("chunks", 650),
        ("short chunks", 650),
        ("only windows", 650),
        ("units", 640),
        ("everything", 640),
        ("only units", 640),
    ],
)
def test_an_edit_within_the_last_page_of_a_prompt(kind, found):
    """Token by token where pages allow it, else from the page border below the end of the prompt on."""
    engine = make(kind)
    ask(engine, IDS[:700])
    assert ask(engine, [*IDS[:650], *OTHER[:100]])[0] == found


@pytest.mark.parametrize(
    ("kind", "found"),
    [("full", 310), ("windows", 256), ("chunks", 256), ("only windows", 256), ("units", 256), ("everything", 256)],
)
def test_an_edit_further_back_goes_on_from_a_mark(kind, found):
    engine = make(kind)
    ask(engine, IDS[:700], marks=(300,))
    assert ask(engine, [*IDS[:310], *OTHER[:100]])[0] == found


@pytest.mark.parametrize("kind", ["windows", "units", "everything", "only units"])
def test_marks_are_in_every_later_conversation(kind):
    """The system message is run once, and it stays though each answer takes the place of the one before."""
    engine = make(kind)
    for start in range(4):
        found, _ = ask(engine, [*IDS[:300], *OTHER[start * 90 : start * 90 + 80]], marks=(300,))
        assert found >= 256 if start else not found


def test_a_long_prompt_has_points_of_its_own():
    engine = make("units", context=20_000)
    long = [*IDS, *OTHER] * 3
    list(engine.generate(long[:17_000], GREEDY))
    assert engine.held([*long[:16_500], 1]) == 16_384 and engine.held([*long[:16_000], 1]) == 8192
    assert (
        engine.held([*long[:8000], 1]) == 0 and engine.held(long[:17_000]) == 16_896 and engine.held([*long[:17_000], 3]) <= 17_000
    )


def test_units_stand_exactly_at_the_ends_of_runs():
    engine = make("units")
    list(engine.generate(IDS[:700], GREEDY, marks=(300,)))
    assert engine.step.ran[:3] == [(0, 256), (256, 384), (640, 60)]
    engine = make("windows")
    list(engine.generate(IDS[:700], GREEDY, marks=(300,)))
    assert engine.step.ran[:2] == [(0, 512), (512, 188)]  # pages of windows need no cut


def test_a_chunk_that_was_left_is_not_needed():
    engine = make((FULL, PagedState((Part("keys", 1, 4),), Chunk(256))))
    ask(engine, IDS[:700])
    assert engine.held([*IDS[:300], 1]) == 256 and engine.held([*IDS[:600], 1]) == 600


def test_chunks_that_begin_within_a_page():
    """Who goes on at the border of one has nothing of those before it in that page, which may be wanted later."""
    engine = make((FULL, PagedState((Part("keys", 1, 4),), Chunk(8))))
    list(engine.generate(IDS[:168], Sampling(temperature=0, max_tokens=1)))
    ask(engine, IDS[:180])
    ask(engine, [*IDS[:145], *OTHER[:2]])
    assert engine.held(IDS[:180]) == 180


@pytest.mark.parametrize(("share", "kept"), [(0.5, 3), (0.05, 0)])
def test_the_oldest_resume_points_go_first(share, kept):
    engine = make("units")
    one = engine.step.groups[1].nbytes
    engine.scheduler.tree.resume_bytes = 3 * one if kept else 0
    list(engine.generate(IDS[:1500], GREEDY, marks=tuple(range(128, 1500, 128))))
    resumes = [each.node.end for each in engine.scheduler.tree._resumes if each.kept]
    assert resumes == [1408 - 128 * at for at in range(kept)][::-1]


def test_pages_that_no_query_can_see_are_free():
    """Live pages only: a window of 150 positions and a run of 512 see six pages at most, whatever the context."""
    engine = make((FULL, WINDOW), context=4096)
    stream = engine.generate(IDS[:2900], Sampling(temperature=0, max_tokens=200))
    most = 0
    for _ in stream:
        most = max(most, len(engine.scheduler.running[0].sequence.tables[1]) if engine.scheduler.running else 0)
    engine.scheduler.tree.resume_bytes = 0
    assert 1 < most <= engine.step.groups[1].live(4096, 512) == 7
    ask(engine, IDS[:100])
    assert engine.scheduler.pages.used(1) <= 14


def test_a_branch_stays_while_there_is_room():
    engine = make("full")
    ask(engine, IDS[:700])
    ask(engine, [*IDS[:650], *OTHER[:300]])
    assert engine.held(IDS[:700]) == 700 and engine.held([*IDS[:650], *OTHER[:300]]) == 950
    for start in range(6):
        ask(engine, [start, *OTHER[:400]])
    assert engine.held(IDS[:700]) < 700  # the oldest went


def test_the_same_ids_are_held_once():
    engine = make("full", rows=2)
    streams = [engine.generate(IDS[:500], GREEDY) for _ in range(2)]
    for _ in zip(*streams, strict=True):
        pass
    for stream in streams:
        list(stream)
    assert engine.scheduler.pages.used(0) == 4


def test_a_tail_is_taken_over_and_a_shared_page_copied():
    engine = make("full")
    copies = []
    copy = engine.step._copy
    engine.step._copy = lambda group, pairs, positions: (copies.append((len(pairs), positions)), copy(group, pairs, positions))[1]
    _, said = ask(engine, IDS[:200])
    ask(engine, [*IDS[:200], *said, 1])
    assert not copies and engine.scheduler.pages.used(0) == 2
    ask(engine, [*IDS[:150], 1])
    assert copies == [(1, 150 - PAGE)]  # no more of the page than is taken up


def test_units_are_read_from_one_and_written_to_another():
    engine = make((UNIT, FixedState((("delta", (3,)),))))
    seen = []
    run = engine.step._run

    def watch(batch):
        seen.append((batch.units_in.copy(), batch.units_out.copy()))
        return run(batch)

    engine.step._run = watch
    list(engine.generate(IDS[:10], GREEDY))
    for (_, before), (after, out) in itertools.pairwise(seen):
        assert (before == after).all() and (after != out).all()
    assert max(int(out.max()) for _, out in seen) == 1  # two units take turns


@pytest.mark.parametrize("kind", ["windows", "units"])
def test_held_says_what_a_prompt_will_find(kind):
    engine = make(kind)
    ask(engine, IDS[:700], marks=(300,))
    for ids in (IDS[:700], [*IDS[:690], 1], [*IDS[:640], 1], [*IDS[:400], 1], [*IDS[:256], 1], [*IDS[:200], 1]):
        held = engine.held(ids)
        other = make(kind)
        ask(other, IDS[:700], marks=(300,))
        assert held >= ask(other, ids)[0] >= min(held, (len(ids) - 1) // PAGE * PAGE)


def test_window_of_one_sees_itself_only():
    engine = make((FULL, PagedState((Part("keys", 1, 4),), Window(1))))
    ask(engine, IDS[:300])
    assert ask(engine, [*IDS[:290], 1, 2])[0] == 290
