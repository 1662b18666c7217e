"""Experts that kernels have read during a run (kernels/experts): their words, and the threads that read.

Python is out of the way of a token then: it would take up to a millisecond for each layer that misses experts, while the disk does
nothing.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lacewing.backends.cpu.arguments import FETCH, MOST_FETCHED, MOST_REQUESTS, READER, REQUEST
from lacewing.backends.cpu.lowering.context import ExpertChain, Lowering
from lacewing.backends.cpu.memory import aligned
from lacewing.backends.cpu.pool import yield_address
from lacewing.backends.fetching import Fetching

FETCH_SECONDS = 0.05  # that kernels wait for the next expert; then Python does, which looks at Ctrl-C and at slow disks
_PATIENCE = 0.15  # seconds that closing waits for reads that are under way
_FUNCTIONS = ("pread", "read", "write", "posix_fadvise", "clock_gettime")
_KERNEL = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)


def functions() -> dict[str, int] | None:
    """Addresses of what kernels call of the C library; None: the system has them otherwise."""
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    library = ctypes.CDLL(None)
    return {name: ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in _FUNCTIONS}


class Fetches:
    """Of a compiled step: `places` says which op of the table has which words. `chains`: each with the places of its ops, by the
    place of its `group`, counted from 1. `stop`: as of `GROUP`."""

    def __init__(self, lowering: Lowering, chains: Mapping[int, tuple[ExpertChain, int, int]], stop: int):
        self._lowering, self._never = lowering, aligned(8, np.int64)
        self._never[0] = 0
        self._functions = functions()
        self._chains: list[tuple[ExpertChain, np.ndarray]] = []
        self._bound: list[Fetching | None] = []
        self._readers: _Readers | None = None
        self.places: dict[int, int] = {}
        for place, (chain, first, end) in chains.items():
            if lowering.ops[first].barrier:
                words = aligned(8 * len(FETCH._fields), np.int64)
                words[:] = 0
                _put(words, back=end - first, stop=stop, place=place, ready=self._never, experts=chain.experts)
                chain.group.set(fetch=_address(words))
                self.places[end - 1] = _address(words)
                self._chains.append((chain, words))

    def bind(self) -> None:
        """After a change of residency. No run is under way."""
        if self._functions is None:
            return
        found = [
            None if (slots := self._lowering.weights[chain.names[0]].slots) is None else slots.fetching for chain, _ in self._chains
        ]
        if len(found) == len(self._bound) and all(new is old for new, old in zip(found, self._bound, strict=True)):
            return
        self.close()
        some = next((each for each in found if each is not None), None)
        if some is None:
            return
        readers = _Readers(self._functions, self._lowering.addresses["experts.collecting.read"], some)
        if not readers.running:
            return
        self._readers = readers
        for (chain, words), fetching in zip(self._chains, found, strict=True):
            if fetching is not None and fetching.share == some.share:
                self._bind(chain, words, fetching, readers)
        self._bound = found

    def close(self) -> None:
        """Nothing is read any more but what is under way."""
        for _, words in self._chains:
            _put(words, ready=self._never)
        before, self._readers, self._bound = self._readers, None, []
        if before is not None:
            before.close()

    def _bind(self, chain: ExpertChain, words: np.ndarray, fetching: Fetching, readers: _Readers) -> None:
        """Tell a chain of its slots. What readers write to and read stays as long as they do."""
        slots, (_, most, _), stacks = len(fetching.memory), fetching.parts.words.shape, list(fetching.addresses)
        tables = [
            (_address(table), stacks.index(name), skipped)
            for name in chain.names
            for skipped, table in self._lowering.expert_tables.get(name, ())
        ]
        kept = {
            "requests": aligned(8 * len(REQUEST._fields) * slots * most, np.int64),
            "waiting": aligned(8 * 3 * MOST_FETCHED, np.int64),
            "list": aligned(8 * MOST_REQUESTS, np.int64),
            "time": aligned(8 * 2, np.int64),
            "stacks": np.array([_address(fetching.addresses[name]) for name in stacks], np.int64),
            "tables": np.array(tables, np.int64).reshape(-1, 3),
        }
        readers.kept.append((kept, fetching))
        names = "kept looked frequency history slot_of expert_in elsewhere memory coming pending failed"
        _put(
            words, **kept, **{name: getattr(fetching, name) for name in names.split()}, counters=fetching.counters,
            counts=fetching.counts, active=fetching.active, part_count=fetching.parts.counts,
            part_words=fetching.parts.words, most_parts=most, nbytes=fetching.parts.nbytes, starts=fetching.parts.starts,
            stack_count=len(stacks), table_count=len(tables), slots=slots, pipe=readers.into, write=readers.functions["write"],
            now=readers.functions["clock_gettime"], yield_function=yield_address(), patience=int(1e9 * FETCH_SECONDS),
            groups=self._lowering.memory.buffers[chain.area], collect=self._lowering.addresses["experts.collecting.collect"],
        )  # fmt: skip
        _put(words, ready=fetching.ready)


def _address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def _put(words: np.ndarray, **values: int | np.ndarray) -> None:
    for name, value in values.items():
        words[getattr(FETCH, name) // 8] = _address(value) if isinstance(value, np.ndarray) else value


class _Pipe:
    """Its end that is read is open as long as somebody has it."""

    def __init__(self) -> None:
        self.out, self.into = os.pipe()
        os.set_blocking(self.into, False)  # a run is not to wait for a disk that hangs
        weakref.finalize(self, os.close, self.out)


class _Readers:
    """Threads that read what kernels ask for, until `close`, or until nobody has this any more. They are daemons: a program that
    ends does not wait for a disk that hangs. `kept`: what they use, which lives as long as they do."""

    def __init__(self, functions: Mapping[str, int], kernel: int, fetching: Fetching):
        pipe = _Pipe()
        self.functions, self.into, self.kept = functions, pipe.into, list[Any]()
        self._threads: list[threading.Thread] = []
        self._finalizer = weakref.finalize(self, _end, pipe.into, fetching.threads, os.getpid())
        for number in range(fetching.threads):
            if (release := fetching.share()) is None:
                break
            words = aligned(8 * (len(READER._fields) + 1), np.int64)
            words[:-1] = READER._replace(
                descriptor=pipe.out, room=_address(words[-1:]), read=functions["read"], pread=functions["pread"],
                advise=functions["posix_fadvise"],
            )  # fmt: skip
            arguments = (kernel, words, release, (pipe, self.kept))
            thread = threading.Thread(target=_read, args=arguments, name=f"lacewing-experts-native-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    @property
    def running(self) -> bool:
        return bool(self._threads)

    def close(self) -> None:
        self._finalizer()
        until = time.monotonic() + _PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))


def _end(into: int, threads: int, process: int) -> None:
    """Every thread ends with a word of zero, or when no process has this end of the pipe any more. A process that was forked off
    has none of the threads, and does not end those of the other."""
    try:
        if os.getpid() == process:
            os.write(into, bytes(8 * threads))
    except BlockingIOError:
        pass  # the disk hangs, and so do all who could take it up
    finally:
        os.close(into)


def _read(kernel: int, words: np.ndarray, release: Callable[[], None], kept: Sequence[Any]) -> None:
    try:
        _KERNEL(kernel)(_address(words), 0, 0, 0)
    finally:
        release()
