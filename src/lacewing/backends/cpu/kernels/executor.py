"""Running a compiled step: every thread walks the table of ops, and waits for the others where an op asks for it.

Waiting spins, because a step has hundreds of ops of some microseconds; after a while it gives its time slice away, so that
crowded cores still make progress. The barrier is one counter that only grows within a step.

A step that is aborted is walked to its end without calling kernels. Whoever skips one arrives at the next barrier afterwards, so
that nobody runs a kernel over what others left out.
"""

from lacewing.backends.cpu.arguments import OP, STEP, STEP_ABORT, STEP_ASLEEP, STEP_BARRIER, STEP_GENERATION, STEP_LINE, STEP_STOP
from lacewing.backends.cpu.kernels.simd.instructions import peek_i64, poke_i64
from lacewing.backends.cpu.kernels.simd.registers import inline
from lacewing.backends.cpu.kernels.simd.threads import atomic_add, atomic_load, atomic_swap, call_i32, call_kernel, pause

OP_BYTES = 8 * len(OP)


@inline
def wait(step, target, yield_function):
    """Until `target` threads have arrived at barriers of this step."""
    spins = 0
    while atomic_load(step + STEP_BARRIER) < target:
        pause()
        spins += 1
        if spins > 400 and yield_function:
            call_i32(yield_function)


@inline
def walk(step, thread):
    threads, table, state = peek_i64(step + STEP.threads), peek_i64(step + STEP.table), peek_i64(step + STEP.state)
    yield_function, target = peek_i64(step + STEP.yield_function), 0
    for index in range(peek_i64(step + STEP.ops)):
        op = table + OP_BYTES * index
        if peek_i64(op + OP.barrier) and threads > 1:
            target += threads
            atomic_add(step + STEP_BARRIER, 1)
            wait(step, target, yield_function)
        if not atomic_load(step + STEP_ABORT):
            call_kernel(peek_i64(op + OP.kernel), peek_i64(op + OP.args), state, thread, threads)
    atomic_add(step + STEP_BARRIER, 1)
    if thread == 0:
        wait(step, target + threads, yield_function)


def begin(step, asleep, _2, _3):
    """Reset the counters, start a generation, and note at `asleep` (int64 a thread) which workers must be woken."""
    for index in range(peek_i64(step + STEP.ops)):
        poke_i64(peek_i64(step + STEP.counters) + 8 * index, 0)
    poke_i64(step + STEP_BARRIER, 0)
    atomic_add(step + STEP_GENERATION, 1)
    for thread in range(1, peek_i64(step + STEP.threads)):
        poke_i64(asleep + 8 * thread, atomic_swap(step + STEP_ASLEEP + STEP_LINE * thread, 0))


def lead(step, _1, _2, _3):
    """Thread 0's part; returns when all threads are done."""
    walk(step, 0)


def work(step, thread, seen, _3):
    """A worker: runs every new generation after the one at address `seen`; goes to sleep when none comes for a while."""
    yield_function, spins = peek_i64(step + STEP.yield_function), 0
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
        if spins > 1000 and yield_function:
            call_i32(yield_function)
            spins += 20
        if spins > peek_i64(step + STEP.spins):
            atomic_swap(asleep, 1)
            # A step may have begun meanwhile: whoever takes the flag back decides whether this worker is woken or stays.
            if atomic_load(step + STEP_GENERATION) == peek_i64(seen) or atomic_swap(asleep, 0) == 0:
                return
            spins = 0
