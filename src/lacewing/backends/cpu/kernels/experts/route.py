"""The router of a mixture of experts, and the sorting of (token, part) pairs by expert. Semantics: program/ops.py, Route."""

from lacewing.backends.cpu.arguments import ALL_HEADS, GROUP, GROUPS_HEAD, ROUTE, SCRATCH_BYTES, STATE
from lacewing.backends.cpu.kernels.experts.fetching import begin_reads
from lacewing.backends.cpu.kernels.simd.functions import exp, sigmoid
from lacewing.backends.cpu.kernels.simd.instructions import (
    load_f32,
    peek_f32,
    peek_i32,
    peek_i64,
    poke_f32,
    poke_i32,
    poke_i64,
    splat_f32,
    store_f32,
    sum_f32,
)
from lacewing.backends.cpu.kernels.simd.registers import LANES, inline
from lacewing.backends.cpu.kernels.simd.threads import atomic_swap

LOWEST = -3.4e38  # below all scores; marks what cannot be chosen
NAN_BITS = 0x7FC00000


@inline
def probabilities(logits, p, experts, use_sigmoid):
    """softmax or sigmoid of the logits, (E,) and padded to whole registers."""
    top = LOWEST
    for e in range(experts):
        value = peek_f32(logits + 4 * e)
        top = max(top, value)
        poke_f32(p + 4 * e, value)
    for e in range(experts, (experts + LANES - 1) // LANES * LANES):
        poke_f32(p + 4 * e, LOWEST)
    total = splat_f32(0.0)
    for e in range(0, experts, LANES):
        v = sigmoid(load_f32(p + 4 * e)) if use_sigmoid else exp(load_f32(p + 4 * e) - splat_f32(top))
        store_f32(p + 4 * e, v)
        total = total + v
    if not use_sigmoid:
        whole = splat_f32(sum_f32(total))
        for e in range(0, experts, LANES):
            store_f32(p + 4 * e, load_f32(p + 4 * e) / whole)


@inline
def take_largest(scores, count):
    """The index of the largest of `count` float32, the lowest among equals; it is marked as taken."""
    best, at = peek_f32(scores), 0
    for i in range(1, count):
        value = peek_f32(scores + 4 * i)
        if value > best:
            best, at = value, i
    poke_f32(scores + 4 * at, LOWEST)
    return at


@inline
def keep_groups(scores, judged, groups, used, best, size, work):
    """Mark the experts outside of the best groups as taken. A group's score: the sum of its `best` largest `judged`."""
    for group in range(groups):
        first, second = LOWEST, LOWEST
        for e in range(group * size, (group + 1) * size):
            value = peek_f32(judged + 4 * e)
            if value > first:
                first, second = value, first
            elif value > second:
                second = value
        poke_f32(work + 4 * group, first + second if best == 2 else first)
        poke_i32(work + 4 * (groups + group), 0)
    for _ in range(used):
        poke_i32(work + 4 * (groups + take_largest(work, groups)), 1)
    for e in range(groups * size):
        if peek_i32(work + 4 * (groups + e // size)) == 0:
            poke_f32(scores + 4 * e, LOWEST)


@inline
def share_of(logits, ids, place, experts, jitter, work):
    """SparseMixer's weight of the expert at a place of the chosen: its share among those left that are nearly as large."""
    top = peek_f32(logits + 4 * peek_i32(ids + 4 * place))
    for e in range((experts + LANES - 1) // LANES * LANES):
        poke_f32(work + 4 * e, LOWEST)
    for e in range(experts):
        value = peek_f32(logits + 4 * e)
        if top - value <= 2.0 * jitter * max(abs(value), top):
            poke_f32(work + 4 * e, value - top)
    for before in range(place):
        poke_f32(work + 4 * peek_i32(ids + 4 * before), LOWEST)
    total = splat_f32(0.0)
    for e in range(0, experts, LANES):
        total = total + exp(load_f32(work + 4 * e))
    return 1.0 / sum_f32(total)


@inline
def route_token(args, logits, ids, weights, scratch):
    experts, active, bias = peek_i64(args + ROUTE.experts), peek_i64(args + ROUTE.active), peek_i64(args + ROUTE.bias)
    room = 4 * (experts + LANES)
    p, scores, work = scratch, scratch + room, scratch + 2 * room
    probabilities(logits, p, experts, peek_i64(args + ROUTE.sigmoid))
    sound = True
    for e in range(experts):
        logit = peek_f32(logits + 4 * e)
        chosen_by = peek_f32(p + 4 * e) + peek_f32(bias + 4 * e) if bias else logit
        sound = sound and logit - logit == 0 and chosen_by - chosen_by == 0  # neither is NaN or infinite
        poke_f32(scores + 4 * e, chosen_by)
    groups = peek_i64(args + ROUTE.groups)
    if groups > 1:
        judged = scores if bias else p
        keep_groups(
            scores, judged, groups, peek_i64(args + ROUTE.groups_used), peek_i64(args + ROUTE.group_best), experts // groups, work
        )
    total = 0.0
    for a in range(active):
        e = take_largest(scores, experts) if sound else a
        w = peek_f32(p + 4 * e)
        poke_i32(ids + 4 * a, e)
        if peek_i64(args + ROUTE.sparse) and sound:
            w = share_of(logits, ids, a, experts, peek_f32(args + ROUTE.jitter), work)
        poke_f32(weights + 4 * a, w)
        total += w
    factor = peek_f32(args + ROUTE.scale)
    if peek_i64(args + ROUTE.renormalise):
        factor = factor / (total + 1e-20)
    scales = peek_i64(args + ROUTE.scales)
    for a in range(active):
        w = peek_f32(weights + 4 * a) * factor
        if scales:
            w *= peek_f32(scales + 4 * peek_i32(ids + 4 * a))
        if sound:
            poke_f32(weights + 4 * a, w)
        else:
            poke_i32(weights + 4 * a, NAN_BITS)


def route(args, state, thread, threads):
    """Threads share the tokens evenly."""
    tokens = peek_i64(state + STATE.tokens)
    scratch = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
    for t in range(tokens * thread // threads, tokens * (thread + 1) // threads):
        logits = peek_i64(args + ROUTE.logits) + t * peek_i64(args + ROUTE.logits_stride)
        ids = peek_i64(args + ROUTE.ids) + t * peek_i64(args + ROUTE.ids_stride)
        weights = peek_i64(args + ROUTE.weights) + t * peek_i64(args + ROUTE.weights_stride)
        route_token(args, logits, ids, weights, scratch)
        if peek_i64(args + ROUTE.watched_ids):
            experts, active = peek_i64(args + ROUTE.experts), peek_i64(args + ROUTE.active)
            for a in range(active):
                poke_i32(peek_i64(args + ROUTE.watched_ids) + 4 * (t * active + a), peek_i32(ids + 4 * a))
            for e in range(experts):  # route_token leaves them at the start of its scratch
                poke_f32(peek_i64(args + ROUTE.watched_probabilities) + 4 * (t * experts + e), peek_f32(scratch + 4 * e))


def all_heads(args, state, thread, threads):
    """What `group` would make if every token chose every head; thread 0 alone."""
    if thread:
        return
    tokens, heads, to = peek_i64(state + STATE.tokens), peek_i64(args + ALL_HEADS.heads), peek_i64(args + ALL_HEADS.to)
    starts = to + GROUPS_HEAD + 8 * heads
    order = starts + 8 * (heads + 1)
    poke_i64(to, heads)
    for head in range(heads):
        poke_i64(to + GROUPS_HEAD + 8 * head, head)
        poke_i64(starts + 8 * head, head * tokens)
        for t in range(tokens):
            poke_i64(order + 8 * (head * tokens + t), t * heads + head)
    poke_i64(starts + 8 * heads, heads * tokens)


@inline
def look_for(args, tokens, chosen, starts, found):
    """Count the uses of the chosen experts; have those come that are not in RAM, or stop the run."""
    clock, missing, fetch = peek_i64(peek_i64(args + GROUP.clock)), 0, peek_i64(args + GROUP.fetch)
    for i in range(found):
        e = peek_i64(chosen + 8 * i)
        count = peek_i64(args + GROUP.counts) + 16 * e
        poke_i64(count, peek_i64(count) + peek_i64(starts + 8 * (i + 1)) - peek_i64(starts + 8 * i))
        poke_i64(count + 8, clock)
        if peek_i64(peek_i64(args + GROUP.there) + 8 * e) == 0:
            missing += 1
    total = peek_i64(args + GROUP.chosen)
    poke_i64(total, peek_i64(total) + found)
    there, groups = peek_i64(args + GROUP.there), peek_i64(args + GROUP.to)
    if missing and not (fetch and begin_reads(fetch, groups, there, tokens, found, clock)):
        atomic_swap(peek_i64(args + GROUP.stop), peek_i64(args + GROUP.place))


def group(args, state, thread, threads):
    """Sort the pairs by expert, in the order of tokens within one; thread 0 alone. Layout of the result: arguments.py."""
    if thread:
        return
    tokens, active, experts = peek_i64(state + STATE.tokens), peek_i64(args + GROUP.active), peek_i64(args + GROUP.experts)
    ids, stride, to = peek_i64(args + GROUP.ids), peek_i64(args + GROUP.ids_stride), peek_i64(args + GROUP.to)
    chosen, starts = to + GROUPS_HEAD, to + GROUPS_HEAD + 8 * experts
    order = starts + 8 * (experts + 1)
    counts = peek_i64(state + STATE.scratch)
    for e in range(experts):
        poke_i64(counts + 8 * e, 0)
    for t in range(tokens):
        for a in range(active):
            e = peek_i32(ids + t * stride + 4 * a)
            if e >= 0:  # -1: another device has it
                poke_i64(counts + 8 * e, peek_i64(counts + 8 * e) + 1)
    found, begin = 0, 0
    for e in range(experts):
        count = peek_i64(counts + 8 * e)
        if count:
            poke_i64(chosen + 8 * found, e)
            poke_i64(starts + 8 * found, begin)
            found += 1
        poke_i64(counts + 8 * e, begin)  # from here on: where its next pair goes
        begin += count
    poke_i64(starts + 8 * found, begin)
    poke_i64(to, found)
    for t in range(tokens):
        for a in range(active):
            e = peek_i32(ids + t * stride + 4 * a)
            if e >= 0:
                at = peek_i64(counts + 8 * e)
                poke_i64(order + 8 * at, t * active + a)
                poke_i64(counts + 8 * e, at + 1)
    if peek_i64(args + GROUP.there):
        look_for(args, tokens, chosen, starts, found)
