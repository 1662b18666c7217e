"""Running a compiled step: every thread walks the table of ops, and waits for the others where an op asks for it.

Waiting spins, because a step has hundreds of ops of some microseconds; after a while it gives its time slice away, so that
crowded cores still make progress. The barrier is one counter that only grows within a step.
"""

from lacewing.backends.cpu.kernels.simd import (
    atomic_add,
    atomic_load,
    atomic_swap,
    call_i32,
    call_kernel,
    inline,
    pause,
    peek_i64,
    poke_i64,
)

(
    STEP_OPS,  # how many
    STEP_TABLE,  # address of OP_WORDS int64 words an op
    STEP_STATE,  # address of the state that kernels get
    STEP_THREADS,
    STEP_COUNTERS,  # address of one int64 an op, zeroed at the start of a step
    STEP_YIELD,  # address of a C function that gives the time slice away, or 0
    STEP_SPINS,  # pauses before a waiting worker goes to sleep
) = range(0, 56, 8)
STEP_GENERATION = 128  # grows with every step; on cache lines of their own, as are the next two
STEP_BARRIER = 256
STEP_STOP = 384  # 1: workers leave
STEP_ASLEEP = 512  # one line a thread: 1 while the worker is in Python, waiting for its semaphore
STEP_LINE = 128

OP_KERNEL, OP_ARGS, OP_BARRIER, OP_WORDS = 0, 8, 16, 4  # barrier 1: all earlier ops must be done first


@inline
def wait(step, target, give_way):
    """Until `target` threads have arrived at barriers of this step."""
    spins = 0
    while atomic_load(step + STEP_BARRIER) < target:
        pause()
        spins += 1
        if spins > 400 and give_way:
            call_i32(give_way)


@inline
def walk(step, thread):
    threads, table, state = peek_i64(step + STEP_THREADS), peek_i64(step + STEP_TABLE), peek_i64(step + STEP_STATE)
    give_way, target = peek_i64(step + STEP_YIELD), 0
    for index in range(peek_i64(step)):
        op = table + 8 * OP_WORDS * index
        if peek_i64(op + OP_BARRIER) and threads > 1:
            target += threads
            atomic_add(step + STEP_BARRIER, 1)
            wait(step, target, give_way)
        call_kernel(peek_i64(op + OP_KERNEL), peek_i64(op + OP_ARGS), state, thread, threads)
    atomic_add(step + STEP_BARRIER, 1)
    if thread == 0:
        wait(step, target + threads, give_way)


def begin(step, asleep, _2, _3):
    """Reset the counters, start a generation, and note at `asleep` (int64 a thread) which workers must be woken."""
    for index in range(peek_i64(step)):
        poke_i64(peek_i64(step + STEP_COUNTERS) + 8 * index, 0)
    poke_i64(step + STEP_BARRIER, 0)
    atomic_add(step + STEP_GENERATION, 1)
    for thread in range(1, peek_i64(step + STEP_THREADS)):
        poke_i64(asleep + 8 * thread, atomic_swap(step + STEP_ASLEEP + STEP_LINE * thread, 0))


def lead(step, _1, _2, _3):
    """Thread 0's part; returns when all threads are done."""
    walk(step, 0)


def work(step, thread, seen, _3):
    """A worker: runs every new generation after the one at address `seen`; goes to sleep when none comes for a while."""
    give_way, spins = peek_i64(step + STEP_YIELD), 0
    asleep = step + STEP_ASLEEP + STEP_LINE * thread
    while True:
        generation = atomic_load(step + STEP_GENERATION)
        if generation != peek_i64(seen):
            poke_i64(seen, generation)
            if atomic_load(step + STEP_STOP):
                return
            walk(step, thread)
            spins = 0
            continue
        pause()
        spins += 1
        if spins > 1000 and give_way:
            call_i32(give_way)
            spins += 20
        if spins > peek_i64(step + STEP_SPINS):
            atomic_swap(asleep, 1)
            # A step may have begun meanwhile: whoever takes the flag back decides whether this worker is woken or stays.
            if atomic_load(step + STEP_GENERATION) == peek_i64(seen) or atomic_swap(asleep, 0) == 0:
                return
            spins = 0
