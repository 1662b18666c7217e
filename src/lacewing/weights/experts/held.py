"""Files that stay open for kernels, which read by descriptor: a number that is closed may be another file's a moment later."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from lacewing.errors import ModelFormatError
from lacewing.weights.experts.descriptors import OpenFiles


class HeldFiles:
    """Open from `open` until all who share them have released them; the first is who made this. `memory`: what is kept as long.

    `ready`: the words of all layers that tell kernels whether they may read.
    `descriptors`, int64, and `buffered`, bool: of each of the `paths`. `threads`: that should read.
    """

    def __init__(self, files: OpenFiles, paths: Iterable[Path], threads: int):
        self.paths, self.threads, self.memory = tuple(dict.fromkeys(paths)), threads, np.empty(0, np.uint8)
        self.descriptors, self.buffered = np.full(len(self.paths), -1, np.int64), np.zeros(len(self.paths), bool)
        self.ready: list[np.ndarray] = []
        self._files, self._stack = files, contextlib.ExitStack()
        self._lock, self._holders = threading.Lock(), 1
        self._is_open, self._is_trusted = False, True

    def open(self) -> bool:
        """Whether kernels may read. Files that cannot be opened now are left to whoever needs them, and tells why."""
        if self._is_open or not self._is_trusted:
            return self._is_trusted
        with contextlib.ExitStack() as stack:
            try:
                files = [stack.enter_context(self._files.use(path)) for path in self.paths]
            except ModelFormatError:
                self._is_trusted = False
                return False
            self.descriptors[:] = [file.descriptor for file in files]
            self.buffered[:] = [not file.direct for file in files]
            with self._lock:
                if self._holders:
                    self._stack, self._is_open = stack.pop_all(), True
        return self._is_open

    def distrust(self) -> None:
        """A kernel's read has failed: from now on all reads are by whoever can tell why."""
        self._is_trusted = False
        for each in self.ready:
            each[0] = 0

    def share(self) -> Callable[[], None] | None:
        """For one more, who calls what this gives at the end; None: nobody has them any more."""
        with self._lock:
            self._holders += self._holders > 0
            return self.release if self._holders else None

    def release(self) -> None:
        with self._lock:
            self._holders -= 1
            if not self._holders:
                self._stack.close()
                self.memory = np.empty(0, np.uint8)
