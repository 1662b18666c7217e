"""Missing experts of a single token without leaving the run: which slots they come to, and the reads that are asked for.

They are waited for in collecting.py.
All is as `backends/fetching.py` says. Whatever is out of the ordinary (a read that fails, a disk that takes long, runs of several
tokens before) is left to Python: the run stops there, as it does where nothing of this is wanted.
"""

from lacewing.backends.cpu.arguments import FETCH, GROUPS_HEAD, MOST_FETCHED, MOST_REQUESTS, REQUEST
from lacewing.backends.cpu.kernels.experts.pairs import put_pair
from lacewing.backends.cpu.kernels.simd.instructions import (
    peek_f64,
    peek_i32,
    peek_i64,
    peek_u8,
    poke_f64,
    poke_i32,
    poke_i64,
)
from lacewing.backends.cpu.kernels.simd.registers import inline
from lacewing.backends.cpu.kernels.simd.threads import atomic_load, atomic_swap, call_system

WAITING = 24  # bytes: an expert, its pair, its slot
PART = 48
REQUEST_BYTES = 8 * len(REQUEST)
FREE, ELSEWHERE, NEVER = -2.0, -1.0, 1e300  # scores
MOST_WAITS = 2  # times the patience that runs have waited in all before Python is asked


@inline
def power(base, exponent):
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


@inline
def look(fetch, clock):
    """`Usage.look`, if each run since the last one was of a single token; whether it was."""
    counts, experts = peek_i64(fetch + FETCH.counts), peek_i64(fetch + FETCH.experts)
    elapsed, uses = clock - peek_i64(peek_i64(fetch + FETCH.looked)), 0
    for e in range(experts):
        uses += peek_i64(counts + 16 * e)
    if uses > peek_i64(fetch + FETCH.active) * max(1, elapsed):
        return False
    poke_i64(peek_i64(fetch + FETCH.looked), clock)
    frequency, history = peek_i64(fetch + FETCH.frequency), peek_i64(fetch + FETCH.history)
    kept, long_kept = (
        power(peek_f64(peek_i64(fetch + FETCH.kept)), elapsed),
        power(peek_f64(peek_i64(fetch + FETCH.kept) + 8), elapsed),
    )
    for e in range(experts):
        used = peek_i64(counts + 16 * e) * 1.0
        poke_i64(counts + 16 * e, 0)
        poke_f64(frequency + 8 * e, peek_f64(frequency + 8 * e) * kept + used)
        poke_f64(history + 8 * e, peek_f64(history + 8 * e) * long_kept + used)
    return True


@inline
def slot_for(fetch, clock, taken):
    """The slot to take next, beside the first `taken` of those that wait; -1: there is none."""
    counts, waiting = peek_i64(fetch + FETCH.counts), peek_i64(fetch + FETCH.waiting)
    best, at = NEVER, -1
    for slot in range(peek_i64(fetch + FETCH.slots)):
        expert, score = peek_i32(peek_i64(fetch + FETCH.expert_in) + 4 * slot), FREE
        if expert >= 0:
            last = peek_i64(counts + 16 * expert + 8)
            score = peek_f64(peek_i64(fetch + FETCH.frequency) + 8 * expert) / (1.0 + clock - last)
            if peek_u8(peek_i64(fetch + FETCH.elsewhere) + expert):
                score = ELSEWHERE
            if last == clock:  # it is one of the chosen
                score = NEVER
        if score < best and atomic_load(peek_i64(fetch + FETCH.pending) + 8 * slot) == 0:
            is_taken = False
            for i in range(taken):
                is_taken = is_taken or peek_i64(waiting + WAITING * i + 16) == slot
            if not is_taken:
                best, at = score, slot
    return at


@inline
def tell(fetch, expert, slot):
    """Kernels, where an expert is; slot -1: nowhere."""
    for stack in range(peek_i64(fetch + FETCH.stack_count)):
        address = 0
        if slot >= 0:
            start = peek_i64(fetch + FETCH.starts) + 8 * (expert * peek_i64(fetch + FETCH.stack_count) + stack)
            address = peek_i64(peek_i64(fetch + FETCH.memory) + 8 * slot) + peek_i64(start)
        poke_i64(peek_i64(peek_i64(fetch + FETCH.stacks) + 8 * stack) + 8 * expert, address)
        for i in range(peek_i64(fetch + FETCH.table_count)):
            table = peek_i64(fetch + FETCH.tables) + 24 * i
            if peek_i64(table + 8) == stack:
                poke_i64(peek_i64(table) + 8 * expert, address + peek_i64(table + 16) if slot >= 0 else 0)


@inline
def ask_for(fetch, expert, slot, asked):
    """Note the reads of an expert in the list, behind `asked` others; how many there are then. Whoever was in the slot leaves."""
    before = peek_i32(peek_i64(fetch + FETCH.expert_in) + 4 * slot)
    if before >= 0:
        where = peek_i32(peek_i64(fetch + FETCH.slot_of) + 4 * before)
        if where == slot or where == -1:
            poke_i32(peek_i64(fetch + FETCH.slot_of) + 4 * before, -1)
            tell(fetch, before, -1)
    poke_i32(peek_i64(fetch + FETCH.expert_in) + 4 * slot, -1)
    poke_i64(peek_i64(fetch + FETCH.coming) + 8 * slot, expert)
    failed, pending = peek_i64(fetch + FETCH.failed) + 8 * slot, peek_i64(fetch + FETCH.pending) + 8 * slot
    parts, most = peek_i64(peek_i64(fetch + FETCH.part_count) + 8 * expert), peek_i64(fetch + FETCH.most_parts)
    poke_i64(failed, 0)
    atomic_swap(pending, parts)
    for p in range(parts):
        part = peek_i64(fetch + FETCH.part_words) + PART * (expert * most + p)
        request = peek_i64(fetch + FETCH.requests) + REQUEST_BYTES * (slot * most + p)
        poke_i64(request + REQUEST.descriptor, peek_i64(part))
        poke_i64(request + REQUEST.offset, peek_i64(part + 8))
        poke_i64(request + REQUEST.nbytes, peek_i64(part + 16))
        poke_i64(request + REQUEST.needed, peek_i64(part + 24))
        poke_i64(request + REQUEST.to, peek_i64(peek_i64(fetch + FETCH.memory) + 8 * slot) + peek_i64(part + 32))
        poke_i64(request + REQUEST.forget, peek_i64(part + 40))
        poke_i64(request + REQUEST.done, pending)
        poke_i64(request + REQUEST.failed, failed)
        poke_i64(peek_i64(fetch + FETCH.list) + 8 * (asked + p), request)
    return asked + parts


@inline
def choose_slots(fetch, there, chosen, order, found, clock):
    """Note the missing of the chosen experts among those that wait, each with a slot; how many there are, -1: not all can come."""
    waiting, missing, parts = peek_i64(fetch + FETCH.waiting), 0, 0
    for i in range(found):
        expert = peek_i64(chosen + 8 * i)
        if peek_i64(there + 8 * expert) == 0 and missing >= 0:
            parts += peek_i64(peek_i64(fetch + FETCH.part_count) + 8 * expert)
            slot = slot_for(fetch, clock, missing) if missing < MOST_FETCHED and parts <= MOST_REQUESTS else -1
            if slot < 0:
                missing = -1
            else:
                poke_i64(waiting + WAITING * missing, expert)
                poke_i64(waiting + WAITING * missing + 8, peek_i64(order + 8 * i))
                poke_i64(waiting + WAITING * missing + 16, slot)
                missing += 1
    return missing


@inline
def begin_reads(fetch, groups, there, tokens, found, clock):
    """Whether the missing experts of a token are on their way now; the pairs are those of the others then."""
    if tokens != 1 or peek_i64(peek_i64(fetch + FETCH.ready)) == 0:
        return False
    chosen, starts = groups + GROUPS_HEAD, groups + GROUPS_HEAD + 8 * peek_i64(fetch + FETCH.experts)
    order = starts + 8 * (peek_i64(fetch + FETCH.experts) + 1)
    waited = peek_i64(peek_i64(fetch + FETCH.counters) + 32)
    if waited > MOST_WAITS * peek_i64(fetch + FETCH.patience):  # Python looks at Ctrl-C
        return False
    if peek_i64(starts + 8 * found) != found or not look(fetch, clock):
        return False
    missing = choose_slots(fetch, there, chosen, order, found, clock)
    if missing < 0:
        return False
    hits, asked, waiting = 0, 0, peek_i64(fetch + FETCH.waiting)
    for i in range(missing):
        asked = ask_for(fetch, peek_i64(waiting + WAITING * i), peek_i64(waiting + WAITING * i + 16), asked)
    nbytes = 8 * asked
    if call_system(peek_i64(fetch + FETCH.write), peek_i64(fetch + FETCH.pipe), peek_i64(fetch + FETCH.list), nbytes, 0) != nbytes:
        for i in range(missing):  # their slots are free
            slot = peek_i64(waiting + WAITING * i + 16)
            poke_i64(peek_i64(fetch + FETCH.coming) + 8 * slot, -1)
            atomic_swap(peek_i64(fetch + FETCH.pending) + 8 * slot, 0)
        return False
    counters = peek_i64(fetch + FETCH.counters)
    poke_i64(counters, peek_i64(counters) + missing)
    poke_i64(fetch + FETCH.left, missing)
    for i in range(found):
        expert = peek_i64(chosen + 8 * i)
        if peek_i64(there + 8 * expert):
            put_pair(groups, chosen, starts, order, hits, expert, peek_i64(order + 8 * i))
            hits += 1
    poke_i64(groups, hits)
    return True
