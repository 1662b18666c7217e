"""Running a compiled step: every thread walks the table of ops, and waits for the others where an op asks for it.

Waiting spins, because a step has hundreds of ops of some microseconds; after a while it gives its time slice away, so that
crowded cores still make progress. Arrivals at barriers are one counter that only grows within a step. Whoever waits looks at
another word, on a line of its own, which the last to arrive writes: a line that all look at and all write moves between cores
with every arrival.

A step that is aborted, or that stops because experts are not in RAM, is walked to its end without calling kernels. Whoever skips
one arrives at the next barrier afterwards, so that nobody runs a kernel over what others left out.

If some experts of a layer are still being read when its linears are done, thread 0 waits until more have come, and all threads go
back to the first linear, which has a barrier.
"""

from lacewing.backends.cpu.arguments import (
    FETCH,
    MAIL,
    MAIL_ASLEEP,
    MAIL_SEEN,
    OP,
    STEP,
    STEP_ABORT,
    STEP_ARRIVED,
    STEP_PASSED,
    STEP_STOP,
)
from lacewing.backends.cpu.kernels.simd.instructions import peek_i64, poke_i64
from lacewing.backends.cpu.kernels.simd.registers import inline
from lacewing.backends.cpu.kernels.simd.threads import atomic_add, atomic_load, atomic_swap, call_i32, call_kernel, pause

OP_BYTES = 8 * len(OP)
PATIENCE = 400  # pauses before the time slice is given away


@inline
def arrive(step, target):
    """At a barrier, which `target` arrivals in this step open."""
    if atomic_add(step + STEP_ARRIVED, 1) + 1 == target:
        atomic_swap(step + STEP_PASSED, target)


@inline
def wait(step, target, yield_function):
    """Until the barrier is open."""
    spins = 0
    while atomic_load(step + STEP_PASSED) < target:
        pause()
        spins += 1
        if spins > PATIENCE and yield_function:
            call_i32(yield_function)


@inline
def walk(step, thread):
    threads, table, state = peek_i64(step + STEP.threads), peek_i64(step + STEP.table), peek_i64(step + STEP.state)
    yield_function, target = peek_i64(step + STEP.yield_function), 0
    index = 0
    while index < peek_i64(step + STEP.ops):
        op = table + OP_BYTES * index
        if peek_i64(op + OP.barrier) and threads > 1:
            target += threads
            arrive(step, target)
            wait(step, target, yield_function)
        if not atomic_load(step + STEP_ABORT) and not atomic_load(step + STEP_STOP):
            call_kernel(peek_i64(op + OP.kernel), peek_i64(op + OP.args), state, thread, threads)
        index, fetch = index + 1, peek_i64(op + OP.fetch)
        if fetch and peek_i64(fetch + FETCH.left):
            target += threads
            arrive(step, target)
            wait(step, target, yield_function)
            if thread == 0:
                call_kernel(peek_i64(fetch + FETCH.collect), fetch, step, index, 0)
            index -= peek_i64(fetch + FETCH.back)
    arrive(step, target + threads)  # a worker's last look at the step
    if thread == 0:
        wait(step, target + threads, yield_function)


def begin(step, mails, woken, _3):
    """Reset the counters and tell the workers, whose mail is at the addresses in `mails` (int64 a thread, from 1 on); note in
    `woken` which of them sleep and must be woken.
    """
    for index in range(peek_i64(step + STEP.ops)):
        poke_i64(peek_i64(step + STEP.counters) + 8 * index, 0)
    poke_i64(step + STEP_ARRIVED, 0)
    poke_i64(step + STEP_PASSED, 0)
    poke_i64(step + STEP_STOP, 0)
    poke_i64(step + STEP.begun, peek_i64(step + STEP.begun) + 1)
    for thread in range(1, peek_i64(step + STEP.threads)):
        mail = peek_i64(mails + 8 * thread)
        poke_i64(mail + MAIL.step, step)
        poke_i64(mail + MAIL.thread, thread)
        atomic_add(mail + MAIL.generation, 1)
        poke_i64(woken + 8 * thread, atomic_swap(mail + MAIL_ASLEEP, 0))


def lead(step, _1, _2, _3):
    """Thread 0's part; returns when all threads are done."""
    walk(step, 0)
    poke_i64(step + STEP.ended, peek_i64(step + STEP.begun))


def work(mail, _1, _2, _3):
    """A worker: runs its part of every step that it is told of; goes to sleep when none comes for a while."""
    yield_function, spins = peek_i64(mail + MAIL.yield_function), 0
    while True:
        generation = atomic_load(mail + MAIL.generation)
        if generation != peek_i64(mail + MAIL_SEEN):
            poke_i64(mail + MAIL_SEEN, generation)
            if peek_i64(mail + MAIL.stop):
                return
            walk(peek_i64(mail + MAIL.step), peek_i64(mail + MAIL.thread))
            spins = 0
            continue
        pause()
        spins += 1
        if spins > 1000 and yield_function:
            call_i32(yield_function)
            spins += 20
        if spins > peek_i64(mail + MAIL.spins):
            atomic_swap(mail + MAIL_ASLEEP, 1)
            # A step may have begun meanwhile: whoever takes the flag back decides whether this worker is woken or stays.
            if atomic_load(mail + MAIL.generation) == peek_i64(mail + MAIL_SEEN) or atomic_swap(mail + MAIL_ASLEEP, 0) == 0:
                return
            spins = 0
