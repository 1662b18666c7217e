"""Waiting for the experts that fetching.py has asked for, and the threads that read them."""

from lacewing.backends.cpu.arguments import FETCH, GROUPS_HEAD, READER, REQUEST, STEP, STEP_ABORT
from lacewing.backends.cpu.kernels.experts.fetching import WAITING, tell
from lacewing.backends.cpu.kernels.experts.pairs import put_pair
from lacewing.backends.cpu.kernels.simd.instructions import peek_i64, poke_i32, poke_i64
from lacewing.backends.cpu.kernels.simd.registers import inline
from lacewing.backends.cpu.kernels.simd.threads import atomic_add, atomic_load, atomic_swap, call_i32, call_system, pause

MONOTONIC, DONTNEED = 1, 4
SPINS = 50  # between two looks at the clock


@inline
def now(fetch):
    """Nanoseconds."""
    at = peek_i64(fetch + FETCH.time)
    call_system(peek_i64(fetch + FETCH.now), MONOTONIC, at, 0, 0)
    return 1000000000 * peek_i64(at) + peek_i64(at + 8)


@inline
def settle(fetch, expert, slot):
    """All of an expert is in its slot."""
    tell(fetch, expert, slot)
    poke_i32(peek_i64(fetch + FETCH.slot_of) + 4 * expert, slot)
    poke_i32(peek_i64(fetch + FETCH.expert_in) + 4 * slot, expert)
    poke_i64(peek_i64(fetch + FETCH.coming) + 8 * slot, -1)
    counters = peek_i64(fetch + FETCH.counters)
    poke_i64(counters + 8, peek_i64(counters + 8) + peek_i64(peek_i64(fetch + FETCH.part_count) + 8 * expert))
    poke_i64(counters + 16, peek_i64(counters + 16) + peek_i64(peek_i64(fetch + FETCH.nbytes) + 8 * expert))


@inline
def take_come(fetch, groups, chosen, starts, order):
    """The pairs are those of the experts that have come; how many, and whether some read has failed."""
    waiting, came, kept, has_failed = peek_i64(fetch + FETCH.waiting), 0, 0, False
    for i in range(peek_i64(fetch + FETCH.left)):
        expert, pair, slot = (
            peek_i64(waiting + WAITING * i),
            peek_i64(waiting + WAITING * i + 8),
            peek_i64(waiting + WAITING * i + 16),
        )
        is_there = atomic_load(peek_i64(fetch + FETCH.pending) + 8 * slot) == 0
        failed = is_there and peek_i64(peek_i64(fetch + FETCH.failed) + 8 * slot) != 0
        has_failed = has_failed or failed
        if is_there and not failed:
            settle(fetch, expert, slot)
            put_pair(groups, chosen, starts, order, came, expert, pair)
            came += 1
        else:
            poke_i64(waiting + WAITING * kept, expert)
            poke_i64(waiting + WAITING * kept + 8, pair)
            poke_i64(waiting + WAITING * kept + 16, slot)
            kept += 1
    poke_i64(fetch + FETCH.left, kept)
    return came, has_failed


def collect(fetch, step, end, _):
    """Wait until some of the experts of a chain have come, the ops of which run again for them; the last op is before `end`. If
    none comes, or a read fails, the run stops and the pairs are those of all that are left."""
    groups = peek_i64(fetch + FETCH.groups)
    chosen, starts = groups + GROUPS_HEAD, groups + GROUPS_HEAD + 8 * peek_i64(fetch + FETCH.experts)
    order = starts + 8 * (peek_i64(fetch + FETCH.experts) + 1)
    poke_i64(groups, 0)
    began, spins = now(fetch), 0
    came, gives_up = take_come(fetch, groups, chosen, starts, order)
    aborted = atomic_load(step + STEP_ABORT) != 0
    while came == 0 and not gives_up and not aborted:
        pause()
        spins += 1
        if peek_i64(fetch + FETCH.yield_function):
            call_i32(peek_i64(fetch + FETCH.yield_function))
        came, gives_up = take_come(fetch, groups, chosen, starts, order)
        if spins % SPINS == 0:
            gives_up = gives_up or now(fetch) - began > peek_i64(fetch + FETCH.patience)
            aborted = atomic_load(step + STEP_ABORT) != 0
    counters = peek_i64(fetch + FETCH.counters)
    waited = now(fetch) - began
    for word in range(24, 40, 8):
        poke_i64(counters + word, peek_i64(counters + word) + waited)
    if gives_up or aborted:
        waiting = peek_i64(fetch + FETCH.waiting)
        for i in range(peek_i64(fetch + FETCH.left)):
            put_pair(groups, chosen, starts, order, came + i, peek_i64(waiting + WAITING * i), peek_i64(waiting + WAITING * i + 8))
        poke_i64(fetch + FETCH.left, 0)
    if gives_up and not aborted:
        atomic_swap(peek_i64(fetch + FETCH.stop), peek_i64(fetch + FETCH.place))
    for op in range(end - peek_i64(fetch + FETCH.back), end):
        poke_i64(peek_i64(step + STEP.counters) + 8 * op, 0)


def read(reader, _1, _2, _3):
    """A thread: reads what it is asked for, until it is asked for nothing (0). A read that gives less than is needed has failed."""
    room = peek_i64(reader + READER.room)
    while True:
        got = call_system(peek_i64(reader + READER.read), peek_i64(reader + READER.descriptor), room, 8, 0)
        if got == 0:  # nobody can ask any more
            return
        if got == 8:
            request = peek_i64(room)
            if request == 0:
                return
            descriptor, offset, nbytes = (
                peek_i64(request + REQUEST.descriptor),
                peek_i64(request + REQUEST.offset),
                peek_i64(request + REQUEST.nbytes),
            )
            came = call_system(peek_i64(reader + READER.pread), descriptor, peek_i64(request + REQUEST.to), nbytes, offset)
            if peek_i64(request + REQUEST.forget):
                call_system(peek_i64(reader + READER.advise), descriptor, offset, nbytes, DONTNEED)
            if came < peek_i64(request + REQUEST.needed):
                atomic_swap(peek_i64(request + REQUEST.failed), 1)
            atomic_add(peek_i64(request + REQUEST.done), -1)
