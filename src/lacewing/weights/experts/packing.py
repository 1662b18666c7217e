"""Writing a pack, and comparing one with the model that it was made from.

What is not finished stands beside the pack under a name of its own. The digest of an expert is written once its bytes are on the
disk, so that the next try goes on where an interrupt, a full disk or a power failure ended the last one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lacewing.errors import ModelFormatError, OptionError
from lacewing.formats.checkpoint import Identity
from lacewing.formats.files import open_regular
from lacewing.formats.read import identity
from lacewing.options import Progress, format_bytes
from lacewing.weights.experts.pack import DIGEST, MAGIC, PackPlan, open_pack
from lacewing.weights.experts.rearranging import PackedExpert, Rearranger, checked

try:
    import fcntl
except ImportError:  # Windows, where experts are not streamed
    fcntl = None  # type: ignore[assignment]

PARTIAL = ".partial"  # behind the name of a pack that is not finished
SYNC_BYTES = 2**26  # written between two times that the disk has them for certain
_NONE = bytes(DIGEST)  # of an expert that is not there yet


@dataclass(frozen=True)
class Packed:
    """What became of writing a pack: bytes of experts that were written now, and those that an earlier try had written."""

    path: Path
    nbytes: int
    kept: int


def write_pack(
    plan: PackPlan,
    files: Mapping[Path, Identity],
    target: Path,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Packed:
    """Write the pack of a model, or finish it. An interrupt leaves what is written, for the next try.

    Raises OptionError for a place that cannot be written to or where another file is, or a disk without room; ModelFormatError if
    the model cannot be read, or changed meanwhile; Cancelled.
    """
    partial = target.with_name(target.name + PARTIAL)
    for path in (target, partial):
        _refuse_other_file(path)
    descriptor = _open(partial)
    try:
        try:
            kept = _write(descriptor, plan, files, partial, progress, cancelled)
            os.replace(partial, target)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            then = "make room and pack again, which goes on from there" if full else "what is written is kept"
            raise OptionError(f"{partial} cannot be written: {error.strerror}; {then}") from None
    finally:
        os.close(descriptor)
    with contextlib.suppress(OSError):  # some file systems do not sync folders
        _sync_folder(target.parent)
    return Packed(target, plan.expert_bytes - kept, kept)


def _refuse_other_file(path: Path) -> None:
    """Only packs are overwritten, and empty files. Raises OptionError."""
    if not os.path.exists(path):
        return
    try:
        file, size = open_regular(path)
        with file:
            other = size > 0 and file.read(len(MAGIC)) != MAGIC
    except (OSError, ModelFormatError) as error:
        raise OptionError(f"{path} cannot be replaced by a pack: {error}; choose another place with `--output`") from None
    if other:
        raise OptionError(f"{path} is there and is no pack of experts; choose another place with `--output`, or delete it")


def _open(partial: Path) -> int:
    """The file that is written to, for this process alone."""
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    except OSError as error:
        raise OptionError(f"{partial} cannot be written: {error.strerror}; choose another place with `--output`") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), os.stat(partial)):  # it was finished by another process meanwhile
            raise FileNotFoundError
    except (BlockingIOError, PermissionError, FileNotFoundError):
        os.close(descriptor)
        raise OptionError(f"{partial} is being written by another process") from None
    except OSError as error:
        os.close(descriptor)
        raise OptionError(
            f"{partial} cannot be locked on its file system: {error.strerror}; choose another place with `--output`"
        ) from None
    return descriptor


def _write(
    descriptor: int,
    plan: PackPlan,
    files: Mapping[Path, Identity],
    partial: Path,
    progress: Progress | None,
    cancelled: Callable[[], bool] | None,
) -> int:
    """Bytes of experts that were there already."""
    digests = _digests(descriptor, plan)
    sizes = [layer.slot_bytes for layer in plan.layers for _ in range(layer.experts)]
    todo = [number for number in range(plan.experts) if digests[number] == _NONE]
    needed = sum(sizes[number] for number in todo)
    kept = plan.expert_bytes - needed
    _refuse_full_disk(descriptor, partial, needed, kept)
    _lay_out(descriptor, plan)
    done, unsynced = kept, list[tuple[PackedExpert, bytes]]()
    for expert in Rearranger(plan, files, partial, checked(cancelled)).experts(todo):
        _write_all(descriptor, expert.content, expert.part.offset)
        digest = hashlib.sha256(expert.content.data).digest()
        unsynced.append((expert._replace(content=_NOTHING, also=_NOTHING), digest))
        done += expert.part.nbytes
        if sum(each.part.nbytes for each, _ in unsynced) >= SYNC_BYTES:
            _sync(descriptor, plan, unsynced)
        if progress is not None:
            progress("packing experts", done, plan.expert_bytes)
    _sync(descriptor, plan, unsynced)
    for path in plan.files:
        if identity(path) != files[path]:
            raise ModelFormatError(path, "changed or was replaced while it was packed; pack it again")
    os.fsync(descriptor)
    return kept


_NOTHING = np.empty(0, np.uint8)


def _digests(descriptor: int, plan: PackPlan) -> list[bytes]:
    """The digests of the experts that are there, all _NONE if what was begun is for another state of the model."""
    if os.pread(descriptor, len(plan.header), 0) != plan.header:
        return [_NONE] * plan.experts
    size = DIGEST * plan.experts
    table = os.pread(descriptor, size, plan.digests_at).ljust(size, b"\0")  # an interrupt may have come before `_lay_out`'s end
    return [table[at : at + DIGEST] for at in range(0, size, DIGEST)]


def _lay_out(descriptor: int, plan: PackPlan) -> None:
    """Header and size; what was begun for another state of the model goes."""
    if os.pread(descriptor, len(plan.header), 0) != plan.header:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, plan.header, 0)
    os.ftruncate(descriptor, plan.nbytes)


def _refuse_full_disk(descriptor: int, partial: Path, needed: int, kept: int) -> None:
    """Raises OptionError, after which a file that has just been made is gone.

    What is written over counts as free: experts of an interrupted try without a digest, and another state of the model.
    """
    status, free = os.fstat(descriptor), shutil.disk_usage(partial.parent).free
    free += max(0, status.st_blocks * 512 - kept)
    if needed > free:
        if status.st_size == 0:
            os.unlink(partial)
        raise OptionError(
            f"the pack takes {format_bytes(needed)} more, and the disk of {partial.parent} has {format_bytes(free)} free; "
            "make room, or choose another place with `--output`"
        )


def _write_all(descriptor: int, content: np.ndarray, offset: int) -> None:
    done = 0
    while done < content.nbytes:
        done += os.pwrite(descriptor, content[done:].data, offset + done)


def _sync(descriptor: int, plan: PackPlan, unsynced: list[tuple[PackedExpert, bytes]]) -> None:
    """The experts are on the disk before their digests say so; then the page cache need not have them."""
    os.fsync(descriptor)
    for expert, digest in unsynced:
        os.pwrite(descriptor, digest, plan.digests_at + DIGEST * expert.number)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, expert.part.offset, expert.part.nbytes, os.POSIX_FADV_DONTNEED)
    unsynced.clear()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def verify_pack(
    plan: PackPlan,
    files: Mapping[Path, Identity],
    path: Path,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> int:
    """Read all of a pack, and the model, and compare them and the digests; the bytes compared.

    Raises ModelFormatError for a pack that is damaged or does not belong to the model, Cancelled.
    """
    found, done = open_pack(path, plan), 0
    with open_regular(path)[0] as file:
        file.seek(plan.digests_at)
        table = file.read(DIGEST * plan.experts)
    for expert in Rearranger(plan, files, path, checked(cancelled), found.identity).experts(range(plan.experts)):
        digest = hashlib.sha256(expert.also.data).digest()
        same = np.array_equal(expert.also, expert.content) and digest == table[DIGEST * expert.number :][:DIGEST]
        if not same:
            problem = "is damaged here; delete it, and pack the model again"
            raise ModelFormatError(path, problem, offset=expert.part.offset)
        done += expert.part.nbytes
        if progress is not None:
            progress("comparing experts", done, plan.expert_bytes)
    return done
