"""Kernels to object files: by Numba, in processes of their own if there are several to compile, or else in this one.

A process is a new interpreter, which reads names and answers with objects. None is forked, as this one may have threads; only
this one writes the cache, so that processes can be killed at any time.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from threading import Thread

import llvmlite.binding as llvm
import psutil

from lacewing.backends.cpu.isa import target_machine

KERNELS_EACH = 3  # at least, that pay for a process: it takes half a second to start
PROCESS_BYTES = 300 << 20
LENGTH_BYTES = 8  # of the length before an object
POLL_SECONDS = 0.1
# What takes longest comes first, so that the processes end together. Kernels of one module share parts and stay together.
_LONGEST = ("attention.attention", "experts", "gemm", "attention", "norm", "gemv")


def symbol(name: str) -> str:
    """The C symbol of a kernel."""
    return "lacewing_" + name.replace(".", "_")


def compile_objects(names: list[str], made: Callable[[str, bytes], None], waiting: Callable[[], None]) -> None:
    """Calls `made` with each name and its object, and in between often `waiting`. Either may raise to give up."""
    ranks = {each: rank for rank, each in enumerate(_LONGEST)}

    def rank(name: str) -> int:
        module = name.rpartition(".")[0]
        return ranks.get(module, ranks.get(module.partition(".")[0], len(ranks)))

    todo, rest = deque(sorted(names, key=rank)), set(names)
    with contextlib.closing(_in_processes(todo, process_count(len(names)), waiting)) as answers:
        for name, code in answers:
            rest.discard(name)
            made(name, code)
    for name in names:  # for which no process could be started, or whose process ended: here, where an error is seen
        if name in rest:
            made(name, compile_object(name))


def process_count(kernels: int) -> int:
    """How many processes compile so many kernels; 0: this one does."""
    if not Path(sys.executable or "").name.lower().startswith("python") or getattr(sys, "frozen", False):
        return 0  # Python is inside another program, which would be started instead
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(cores, kernels // KERNELS_EACH, psutil.virtual_memory().available // PROCESS_BYTES)
    return count if count > 1 else 0


Answers = queue.SimpleQueue[tuple[str, bytes] | None]  # None: a process has nothing more to do


def _in_processes(todo: deque[str], count: int, waiting: Callable[[], None]) -> Generator[tuple[str, bytes], None, None]:
    answers: Answers = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        running = 0
        with contextlib.suppress(OSError):  # too many processes
            for _ in range(count):
                stack.enter_context(_process(todo, answers))
                running += 1
        while running:
            try:
                answer = answers.get(timeout=POLL_SECONDS)
            except queue.Empty:
                waiting()
                continue
            if answer:
                yield answer
            else:
                running -= 1


@contextlib.contextmanager
def _process(todo: deque[str], answers: Answers) -> Iterator[None]:
    """An interpreter that runs `serve`, and a thread that talks with it. In a session of its own: Ctrl-C is for this process."""
    code = f"import sys; sys.path[:] = {[path for path in sys.path if path]!r}; from {__name__} import serve; serve()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        start_new_session=True, creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )  # fmt: skip
    thread = Thread(target=_ask, args=(process, todo, answers), daemon=True)
    thread.start()
    try:
        yield
    finally:
        process.kill()
        thread.join()
        with contextlib.suppress(OSError):  # the pipe has a name that nobody will read
            process.communicate()


def _ask(process: subprocess.Popen[bytes], todo: deque[str], answers: Answers) -> None:
    """A thread for each process: names to it, objects from it, until there are no more or it ends; then None."""
    try:
        while todo and process.stdin and process.stdout:
            name = todo.popleft()
            process.stdin.write(name.encode() + b"\n")
            process.stdin.flush()
            length = int.from_bytes(process.stdout.read(LENGTH_BYTES), "little")
            code = process.stdout.read(length)
            if not length or len(code) < length:
                break
            answers.put((name, code))
    except (OSError, IndexError, ValueError):
        pass  # it ended, or another thread took the last name
    finally:
        answers.put(None)


def serve() -> None:
    """Compiles the kernels named on standard input, a line each; answers with 8 bytes of length and the object."""
    names: queue.SimpleQueue[str] = queue.SimpleQueue()
    Thread(target=_receive, args=(names,), daemon=True).start()
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)  # what else is printed must not come between the objects
        while True:
            code = compile_object(names.get())
            out.write(len(code).to_bytes(LENGTH_BYTES, "little") + code)
            out.flush()


def _receive(names: queue.SimpleQueue[str]) -> None:
    """The input ends when the process that asks does, even if it was killed; then nobody waits for the kernel in work."""
    for line in sys.stdin.buffer:
        names.put(line.decode().strip())
    os._exit(0)


def kernel_function(name: str) -> Callable[..., None]:
    """The Python source of a kernel."""
    module, function = name.rsplit(".", 1)
    return getattr(importlib.import_module(f"lacewing.backends.cpu.kernels.{module}"), function)  # type: ignore[no-any-return]


def compile_object(name: str) -> bytes:
    """Machine code of one kernel as an object file that defines `symbol(name)`."""
    return target_machine().emit_object(_optimised(name))  # type: ignore[no-any-return]


def assembly(name: str) -> str:
    """The machine code of a kernel as text, to look at."""
    machine, module = target_machine(), _optimised(name)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    return machine.emit_assembly(module)  # type: ignore[no-any-return]


@contextlib.contextmanager
def _no_machine_code() -> Iterator[None]:
    """Numba stops at LLVM's language. It would also make machine code of every function that a kernel calls, which nobody runs and
    which takes up to three quarters of the time. For whoever holds the compiler's lock: others in this process may use Numba too.
    """
    from numba.core.codegen import JITCodeLibrary
    from numba.core.registry import cpu_target

    class Library(JITCodeLibrary):
        def _finalize_final_module(self) -> None:
            self._finalized = True

        def get_pointer_to_function(self, name: str) -> int:
            return 0  # as Numba says it of a function that has no machine code

    codegen = cpu_target.target_context.codegen()
    own = {"_library_class": Library, "set_env": lambda name, environment: None}  # instead of the class's
    vars(codegen).update(own)
    try:
        yield
    finally:
        for name in own:
            del vars(codegen)[name]


def _optimised(name: str) -> llvm.ModuleRef:
    from numba import types
    from numba.core.ccallback import CFunc
    from numba.core.compiler_lock import global_compiler_lock

    with global_compiler_lock, _no_machine_code():
        signature = ((types.int64,) * 4, types.void)
        wrapped = CFunc(kernel_function(name), signature, {}, {"error_model": "numpy", "forceinline": True})
        compiled = wrapped._compile_uncached()  # type: ignore[attr-defined]  # `compile` would make machine code as well, which we do ourselves
        compiled.library.finalize()
        text = compiled.library.get_llvm_str()
    # Numba gives its functions names of its own; the wrapper has C linkage and is the one we export.
    module = llvm.parse_assembly(text.replace(compiled.fndesc.llvm_cfunc_wrapper_name, symbol(name)))
    module.verify()
    foreign = [f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")]
    if foreign:  # a kernel that may raise or allocate; nothing would resolve these names at run time
        raise RuntimeError(f"kernel {name} calls {', '.join(foreign)}")
    return module
