"""Compiling kernels, here and in other processes: the same objects, given up at once, and finished whatever ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import llvmlite.binding as llvm
import numba
import numpy
import psutil
import pytest

from lacewing.backends.cpu import compiling
from lacewing.backends.cpu.kernels.gemm import rows
from lacewing.errors import Cancelled

KERNEL = "gemm.rows.gather"  # a small one
SMALL = [KERNEL, "executor.begin", "executor.lead", "quants.unpack_32.unpack_q4_1", "quants.unpack_32.unpack_q8_0"]


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes, however many cores and how much memory there is."""
    monkeypatch.setattr(compiling, "process_count", lambda kernels: 2)


def compiled(names: list[str], waiting=lambda: None) -> dict[str, bytes]:
    made: dict[str, bytes] = {}
    compiling.compile_objects(names, lambda name, code: made.update({name: code}), waiting)
    return made


def children() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if "compiling" in " ".join(each.cmdline())]


def machine_code(code: bytes) -> dict[str, bytes]:
    """What a kernel does; its symbols have names that count Numba's functions, in the order of compilation."""
    return {section.name(): section.data() for section in llvm.ObjectFileRef.from_data(code).sections() if section.is_text()}


def test_processes_make_the_objects_that_this_one_makes(two: None) -> None:
    made = compiled(SMALL)
    assert sorted(made) == sorted(SMALL) and children() == []
    for name in SMALL[1:4]:
        code = machine_code(made[name])
        assert sum(map(len, code.values())) > 100 and machine_code(compiling.compile_object(name)) == code


def test_what_takes_longest_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(todo, count, waiting):
        asked.extend(todo)
        yield from ((name, b"code") for name in todo)

    monkeypatch.setattr(compiling, "_in_processes", answer)
    names = [
        "executor.lead",
        "gemv.gemv_32.gemv_q4_1",
        "norm.norm",
        "attention.heads.angles",
        "gemm.linear.linear",
        "attention.attention.attention_f16",
    ]
    compiled(names)
    assert asked == [names[5], names[4], names[3], names[2], names[1], names[0]]


@pytest.mark.parametrize(
    ("kernels", "cores", "gib", "count"),
    [(20, 2, 8, 2), (20, 64, 8, 6), (20, 1, 8, 0), (5, 8, 8, 0), (6, 8, 8, 2), (1, 8, 8, 0), (20, 8, 0.7, 2), (20, 8, 0.1, 0)],
)
def test_as_many_processes_as_pay(kernels: int, cores: int, gib: float, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores), raising=False)
    memory = type("Memory", (), {"available": int(gib * 2**30)})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert compiling.process_count(kernels) == count


def test_a_program_that_holds_python_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("/usr/bin/blender", "", None):
        monkeypatch.setattr(sys, "executable", program)
        assert compiling.process_count(20) == 0
    monkeypatch.undo()
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert compiling.process_count(20) == 0


def test_a_killed_process_leaves_nothing_undone(two: None) -> None:
    killed: list[psutil.Process] = []

    def kill() -> None:
        if not killed:
            killed.extend(children())
            for each in killed:
                each.kill()

    assert sorted(compiled(SMALL, kill)) == sorted(SMALL)
    assert len(killed) == 2 and children() == []


def test_where_no_process_starts_this_one_compiles(two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", fail)
    assert sorted(compiled(SMALL[:2])) == sorted(SMALL[:2])


def test_an_error_in_a_kernel_is_seen_here(two: None) -> None:
    with pytest.raises(AttributeError, match="no_such_kernel"):
        compiled([KERNEL, "gemm.rows.no_such_kernel"])
    assert children() == []


def test_giving_up_takes_no_time_and_leaves_no_process(two: None) -> None:
    """While a kernel of some seconds is being compiled."""

    def cancel() -> None:
        if len(children()) == 2:
            raise Cancelled("given up")

    began = time.monotonic()
    with pytest.raises(Cancelled):
        compiled(["attention.attention.attention_f16", "gemm.linear.linear"], cancel)
    assert children() == [] and time.monotonic() - began < 5


CODE = """
import os, signal, sys
from lacewing.backends.cpu import compiling, native
compiling.process_count = lambda kernels: 2

def told(what, done, total, at=set()):
    if not at:
        print("compiling", flush=True)
    at.add(done)

native.load({names}, told)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_processes_end_with_the_one_that_started_them(number: int, tmp_path: Path) -> None:
    """As do those of a terminal: Ctrl-C goes to its whole group. A part of the cache is a good cache."""
    names = ["attention.attention.attention_f16", "attention.attention.attention_f32", *SMALL]
    environment = os.environ | {"LACEWING_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", CODE.format(names=names)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        process.stdout.readline()
        deadline = time.monotonic() + 60
        while len(started := psutil.Process(process.pid).children()) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, number)
        assert process.wait(20) != 0
    assert len(started) == 2 and psutil.wait_procs(started, timeout=60)[1] == []
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".o"]


def test_a_script_without_a_main_guard_and_other_modules_beside_it(tmp_path: Path) -> None:
    """Nobody's script runs twice, and a file called json.py in the current folder is not imported."""
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    (tmp_path / "numba.py").write_text("raise SystemExit('the wrong numba')")
    script = tmp_path / "script" / "script.py"
    script.parent.mkdir()
    script.write_text(CODE.format(names=SMALL) + "print('end')")
    environment = os.environ | {"LACEWING_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, script], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout == "compiling\nend\n" and done.stderr == ""
    assert len(list((tmp_path / "cache").rglob("*.o"))) == len(SMALL)


def test_others_in_this_process_may_use_numba_afterwards() -> None:
    """Of our kernels Numba makes no machine code; of other functions it does, also of what both call."""
    compiling.compile_object(KERNEL)

    @numba.njit
    def clamped(values: numpy.ndarray, least: int) -> int:
        if least > 100:
            raise ValueError("too much")
        return max(min(values[0], 9), least) + len(range(least))

    assert clamped(numpy.array([40]), 3) == 12
    compiling.compile_object(SMALL[1])
    assert clamped(numpy.array([2.5]), 4) == 8
    with pytest.raises(ValueError, match="too much"):
        clamped(numpy.array([2.5]), 101)


def test_kernels_that_would_call_the_c_library_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def allocates(args, state, thread, threads):
        values = []
        for i in range(threads):
            values.append(i)

    monkeypatch.setattr(rows, "gather", allocates)
    with pytest.raises(RuntimeError, match=r"rows\.gather calls"):
        compiling.compile_object(KERNEL)
