"""The files that experts are read from, some of them open: a checkpoint may have more files than a process may have open."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lacewing.errors import ModelFormatError
from lacewing.formats.checkpoint import Identity
from lacewing.formats.read import identity, identity_of

try:
    import fcntl
    import resource
except ImportError:  # Windows, where experts are not streamed
    fcntl = resource = None  # type: ignore[assignment]

DIRECT = getattr(os, "O_DIRECT", 0)
_SHARE = 4  # one of so many descriptors that the process may have
_LEAST, _MOST = 8, 256
_CLOSED = "is no longer read: the model was closed"
_CHANGED = "changed or was replaced after it was opened; load the model again"


def most_open() -> int:
    """How many files may be open at a time, by the limit of the process (`ulimit -n`)."""
    limit = 4 * _MOST if resource is None else resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit < 0:  # there is none
        return _MOST
    return max(_LEAST, min(_MOST, limit // _SHARE))


@dataclass
class OpenFile:
    """`direct`: its reads must be whole pages. `users`: reads that are under way; `retired`: to be closed after them."""

    descriptor: int
    direct: bool
    users: int = 0
    retired: bool = False


class OpenFiles:
    """Descriptors by path, for several threads. Over `most` the one that was used longest ago is closed, and opened again by use.

    `files`: what the files were when they were opened first; others of their names are refused. `direct`: past the system's page
    cache, where that can be done.
    """

    def __init__(self, files: Mapping[Path, Identity], direct: bool, most: int | None = None):
        self._files, self._direct, self._most = files, direct, most or most_open()
        self._open: OrderedDict[Path, OpenFile] = OrderedDict()
        self._refused: set[Path] = set()  # whose file system takes no direct reads
        self._opening = 0  # opened at this moment, without the lock: a disk that hangs is not to keep others from closing
        self._lock, self._closed = threading.Lock(), False

    def __len__(self) -> int:
        return len(self._open)

    @contextlib.contextmanager
    def use(self, path: Path) -> Iterator[OpenFile]:
        """Raises ModelFormatError for a file that cannot be opened, or is not the one that was opened first."""
        with self._lock:
            file = self._taken(path)
            if file is None:
                if self._closed:
                    raise ModelFormatError(path, _CLOSED)
                self._make_room(self._most - 1 - self._opening)
                self._opening += 1
        if file is None:
            file = self._added(path)
        try:
            yield file
        finally:
            with self._lock:
                file.users -= 1
                if file.retired and not file.users:
                    os.close(file.descriptor)

    @property
    def direct(self) -> bool:
        """Whether reads are past the page cache, as far as is known yet."""
        return self._direct and not self._refused

    def refuse_direct(self, path: Path, file: OpenFile) -> None:
        """After direct reads of it were refused: it is opened anew by its next use."""
        with self._lock:
            self._refused.add(path)
            if self._open.get(path) is file:
                self._retire(self._open.pop(path))

    def close(self) -> None:
        """Those that are in use are closed after it."""
        with self._lock:
            self._closed = True
            while self._open:
                self._retire(self._open.popitem()[1])

    def _taken(self, path: Path) -> OpenFile | None:
        """One that is open, for one more user."""
        if (file := self._open.get(path)) is not None:
            self._open.move_to_end(path)
            file.users += 1
        return file

    def _added(self, path: Path) -> OpenFile:
        """Open one, for its first user; or that of another thread, if it was faster."""
        try:
            opened = self._opened(path)
        except BaseException:
            with self._lock:
                self._opening -= 1
            raise
        with self._lock:
            self._opening -= 1
            file = self._taken(path)
            if file is None and not self._closed:
                file = self._open[path] = opened
                file.users = 1
        if file is not opened:
            os.close(opened.descriptor)
        if file is None:
            raise ModelFormatError(path, _CLOSED)
        return file

    def _retire(self, file: OpenFile) -> None:
        file.retired = True
        if not file.users:
            os.close(file.descriptor)

    def _make_room(self, left: int) -> bool:
        """Close those that are not in use until `left` are open; whether any was."""
        idle = [path for path, file in self._open.items() if not file.users]
        closed = idle[: max(0, len(self._open) - left)]
        for path in closed:
            self._retire(self._open.pop(path))
        return bool(closed)

    def _opened(self, path: Path) -> OpenFile:
        direct = bool(self._direct and DIRECT) and path not in self._refused
        while True:
            if identity(path) != self._files[path]:  # before anything but a regular file could be opened
                raise ModelFormatError(path, _CHANGED)
            try:
                descriptor = os.open(path, os.O_RDONLY | (DIRECT if direct else 0))
                break
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):  # others of the process take them: one of ours makes room
                    with self._lock:
                        made_room = self._make_room(len(self._open) - 1)
                    if made_room:
                        continue
                    raise ModelFormatError(path, "cannot be opened: too many files are open; raise `ulimit -n`") from None
                if not direct:
                    raise ModelFormatError(path, f"cannot be opened: {error.strerror}") from None
                direct = False
                with self._lock:
                    self._refused.add(path)
        if identity_of(os.fstat(descriptor)) != self._files[path]:
            os.close(descriptor)
            raise ModelFormatError(path, _CHANGED)
        if self._direct and not direct and (no_cache := getattr(fcntl, "F_NOCACHE", None)) is not None:  # of macOS
            fcntl.fcntl(descriptor, no_cache, 1)
        return OpenFile(descriptor, direct)
