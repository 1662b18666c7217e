"""Worker threads: steps after idle times, closing, many steps made and closed, numbers that are none."""

import gc
import os
import re
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import psutil
import pytest

from lacewing.backends.batch import Batch, StepLimits
from lacewing.backends.cpu import CpuBackend, native
from lacewing.errors import BackendError, OptionError, OutOfMemoryError, UnsupportedModelError
from lacewing.program.ops import Buffer, Linear, Norm, Op
from tests.backends.cpu.checks import attention_case, gated_case
from tests.backends.cpu.single_ops import Case, normal, one_batch, random_weight
from tests.checkpoints import prompt_of, tiny
from tests.models.running import open_step, run


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny("gemma2", "gguf", tmp_path_factory.mktemp("pool"), "Q8_0")


def workers() -> int:
    """Those of pools: other threads of ours, which earlier tests may have left, have words in their names. Steps that nobody has
    closed end theirs when they are collected, which is not to happen between two counts."""
    gc.collect()
    return sum(re.fullmatch(r"lacewing-\d+", thread.name) is not None for thread in threading.enumerate())


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_steps_after_idle_times(path: Path, threads: int) -> None:
    """Workers spin for some milliseconds, then sleep; a step must find them at any time between."""
    _, step = open_step(path, None, CpuBackend(threads))
    ids = prompt_of("gemma2")
    expected = run(step, ids)
    for idle in (0, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.2):
        time.sleep(idle)
        for _ in range(2):
            assert np.array_equal(run(step, ids), expected)
    step.close()


def test_more_threads_than_cores(path: Path) -> None:
    """Waiting threads give way, so that a step of hundreds of ops does not take seconds."""
    ids = prompt_of("gemma2")
    (_, step), (_, single) = open_step(path, None, CpuBackend(12)), open_step(path, None, CpuBackend(1))
    expected = run(single, ids)
    for _ in range(5):
        assert np.array_equal(run(step, ids), expected)
    step.close()


def test_idle_workers_use_no_cpu_time(path: Path) -> None:
    _, step = open_step(path, None, CpuBackend(3))
    run(step, prompt_of("gemma2"))
    time.sleep(0.1)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1
    step.close()


def test_closing_at_once_twice_and_asleep(path: Path) -> None:
    before = workers()
    for idle, used in ((0, False), (0, True), (0.1, True), (0.1, False)):
        _, step = open_step(path, None, CpuBackend(3))
        assert workers() == before + 2
        if used:
            run(step, [1, 2, 3])
        time.sleep(idle)
        step.close()
        assert workers() == before
        step.close()


def test_many_steps_made_and_closed_leave_nothing(path: Path) -> None:
    def cycle() -> None:
        _, step = open_step(path, 128, CpuBackend(2), rows=4)
        run(step, [1, 2, 3])
        step.close()

    for _ in range(5):
        cycle()
    gc.collect()
    before, memory, loaded = workers(), psutil.Process().memory_info().rss, len(native._addresses)
    for _ in range(50):
        cycle()
    gc.collect()
    assert workers() == before and len(native._addresses) == loaded
    assert psutil.Process().memory_info().rss - memory < 20e6


def test_two_steps_side_by_side(path: Path) -> None:
    """Each on a thread of its own, as a server with two models has them."""
    ids = prompt_of("gemma2")
    steps = [open_step(path, None, CpuBackend(2))[1] for _ in range(2)]
    expected, found = run(steps[0], ids), [[], []]  # type: ignore[var-annotated]

    def work(index: int) -> None:
        found[index] = [run(steps[index], ids) for _ in range(10)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(logits, expected) for results in found for logits in results)
    for step in steps:
        step.close()


def test_one_step_from_several_threads(path: Path) -> None:
    """They take turns; two leaders of one pool would wait for each other for ever."""
    _, step = open_step(path, None, CpuBackend(2))
    ids = prompt_of("gemma2")
    expected, wrong = run(step, ids), []

    def work() -> None:
        for _ in range(20):
            step.run(Batch.of(ids, 0, np.arange(len(ids))))
        wrong.append(not np.array_equal(run(step, ids), expected))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads) and len(wrong) == 3
    step.close()


@pytest.mark.parametrize("part", ["_wake_sleepers", "_lead"])
@pytest.mark.parametrize("idle", [0.0, 0.1])
def test_an_interrupted_step_is_brought_to_its_end(path: Path, part: str, idle: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C can fall between the parts of a step; its workers wait then, and the next step would wait for them."""
    _, step = open_step(path, None, CpuBackend(3))
    expected, pool = run(step, [1, 2, 3]), step._pool  # type: ignore[attr-defined]
    time.sleep(idle)
    whole, calls = getattr(pool, part), []

    def interrupted(*arguments: int) -> None:
        calls.append(arguments)
        if len(calls) == 1:
            raise KeyboardInterrupt
        whole(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pool, part, interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(step, [4, 5, 6])
    assert np.array_equal(run(step, [1, 2, 3]), expected)
    step.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_step_that_is_over_at_ctrl_c_does_not_run_again(path: Path, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is for every Ctrl-C that comes while kernels run."""
    _, step = open_step(path, None, CpuBackend(threads))
    expected, pool, calls = run(step, [1, 2, 3]), step._pool, []  # type: ignore[attr-defined]
    whole = pool._lead

    def lead(*arguments: int) -> None:
        whole(*arguments)
        calls.append(arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pool, "_lead", lead)
        with pytest.raises(KeyboardInterrupt):
            run(step, [4, 5, 6])
    assert len(calls) == 1
    assert np.array_equal(run(step, [1, 2, 3]), expected)
    step.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_is_told(path: Path) -> None:
    _, step = open_step(path, None, CpuBackend(2))
    run(step, [1, 2, 3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of threads
        child = os.fork()
    if child == 0:
        try:
            run(step, [1, 2, 3])
        except BackendError:
            os._exit(42)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    step.close()


def test_arguments_out_of_range_are_refused(path: Path) -> None:
    _, step = open_step(path, 64, CpuBackend(1), chunk=16)
    one, zero = np.ones(1, np.int32), np.zeros(1, np.int32)
    wrong = [(320 * one, zero, zero, zero), (-one, zero, zero, zero), (one, one, zero, zero), (one, zero, 64 * one, zero),
             (one, zero, -one, zero), (one, zero, zero, one), (one, zero, zero, -one), (one, zero, np.zeros(2, np.int32), zero),
             (one[:0], zero[:0], zero[:0], zero[:0]), (np.ones(17, np.int32),) * 4]  # fmt: skip
    for arguments in wrong:
        with pytest.raises(OptionError):
            step.run(Batch(*arguments))
    assert np.isfinite(run(step, [1, 2])).all()
    step.close()
    with pytest.raises(OptionError, match="closed"):
        run(step, [1, 2])


def test_what_does_not_fit_is_refused_when_compiled() -> None:
    case = attention_case(1, 2, 1, 16, 16)
    with pytest.raises(OutOfMemoryError, match=r"KV cache and buffers of 1 x \d+ tokens: .* smaller context"):
        case.step(CpuBackend(1), context=2**46)
    for widths in ((1024, 1024), (8, 4096)):
        with pytest.raises(UnsupportedModelError, match="heads of up to"):
            attention_case(1, 1, 1, *widths).step(CpuBackend(1), context=8)
    wide = random_weight("w", "TQ2_0", 8, 256 * 300)
    view, out = Buffer("x", 256 * 300).view(), Buffer("y", 8).view()
    with pytest.raises(UnsupportedModelError, match="TQ2_0 rows of up to 65000"):
        Case((Linear(view, ("w",), (out,)),), normal(1, view.width), out, {"w": wide}).step(CpuBackend(1), context=8)
    program, weights = case.program, case.all_weights(case.program.vocab_size)
    for chunk in (0, 513):
        with pytest.raises(OptionError, match="1 to 512 tokens"):
            CpuBackend(1).compile(program, weights, StepLimits(8, chunk))


_X, _N, _Y = (Buffer(name, width).view() for name, width in (("x", 64), ("n", 64), ("y", 40)))
CHAINS: dict[str, tuple[Op, ...]] = {
    "linear": (Linear(_X, ("w",), (_Y,)),),
    "norm": (Norm(_X, None, _N, 1e-5), Linear(_N, ("w",), (_Y,))),
}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("quant", ["Q8_0", "Q4_1", "F32"])
def test_numbers_that_are_none_reach_the_logits_of_their_token_only(bad: float, chain: str, quant: str) -> None:
    """A request with NaN logits fails (engine); quantised activations must not turn it into ordinary numbers."""
    x = normal(9, 64)
    x[4, 37] = bad
    weights = {"w": random_weight("w", quant, 40, 64)}
    found = Case(CHAINS[chain], x, Buffer("y", 40).view(), weights).run(one_batch(9), 2)
    x[4] = 1
    expected = Case(CHAINS[chain], x, Buffer("y", 40).view(), weights).run(one_batch(9))
    others = np.arange(9) != 4
    assert np.array_equal(found[others], expected[others])
    assert not np.isfinite(found[4]).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_attention_and_activation_survive_numbers_that_are_none(bad: float) -> None:
    case = attention_case(20, 4, 2, 16, 16)
    case.x[11, :] = bad
    found = case.run(one_batch(20), 2)
    assert not np.isfinite(found[11]).any()
    assert np.isfinite(case.run([([0] * 11, list(range(11))), ([1] * 9, list(range(9)))], 2, rows=2)[:11]).all()
    for activation in ("silu", "gelu_tanh"):
        gated = gated_case(40, activation, False)
        gated.x[3, 5] = bad
        assert np.isfinite(np.delete(gated.run(one_batch(21)), 3, axis=0)).all()
