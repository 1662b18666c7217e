"""A pack: a copy of a model's experts in which each is one read.

Expert after expert, each on a page; its matrices (gate, up, down) side by side, each on a cache line and in the order in memory
that the backend's kernels like best. In front of them: a header, JSON, that says what the pack was made from and how it is laid
out, and the SHA-256 of every expert. Nothing is taken from the header: a pack whose header is not, byte for byte, what this version
would write for the model is not used.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from lacewing.backends.weights import TileOrder
from lacewing.errors import ModelFormatError
from lacewing.formats.checkpoint import ByteRange, Identity
from lacewing.formats.files import open_regular, stem_of
from lacewing.formats.read import identity
from lacewing.paths import cache_dir
from lacewing.quants.base import Quant
from lacewing.weights.experts.source import PAGE, ExpertReads, FileLayer, Stack, Stacks
from lacewing.weights.tiles import Tiles

SUFFIX = ".experts"
VERSION = 1
DIGEST = hashlib.sha256().digest_size
MAGIC = b"LACEPACK"
CHECKED = 16  # experts that are compared with their digests when a pack is opened
_CACHE_LINE = 64
_MOST_HEADER = 2**24  # bytes that are read of a header
_SAMPLE = 2**16  # bytes at either end of a file of the model that must be the same


class QuantisedStack(Stack, Protocol):
    """What must be known of a weight whose experts are packed."""

    @property
    def quant(self) -> Quant: ...


@dataclass(frozen=True)
class PackedLayer:
    """The experts of a layer in a pack; a `LayerSource`. `tiles`: the order of each stack, None: rows; `at`: where the first is."""

    path: Path
    stacks: Stacks
    experts: int
    tiles: tuple[Tiles | None, ...]
    sizes: tuple[int, ...]  # bytes of an expert in each stack
    at: int = 0

    @property
    def starts(self) -> tuple[int, ...]:
        """Where each stack begins in an expert."""
        ends = np.cumsum([-(-size // _CACHE_LINE) * _CACHE_LINE for size in self.sizes]).tolist()
        return (0, *ends[:-1])

    @property
    def slot_bytes(self) -> int:
        return -(-(self.starts[-1] + self.sizes[-1]) // PAGE) * PAGE

    @property
    def tiled(self) -> frozenset[str]:
        return frozenset(name for name, tiles in zip(self.stacks, self.tiles, strict=True) if tiles is not None)

    def reads(self, expert: int) -> ExpertReads:
        return ExpertReads((ByteRange(self.path, self.at + expert * self.slot_bytes, self.slot_bytes),), self.starts)

    def rows(self, expert: int, slot: np.ndarray) -> dict[str, np.ndarray]:
        found = {}
        for name, start, size, tiles in zip(self.stacks, self.starts, self.sizes, self.tiles, strict=True):
            found[name] = slot[start : start + size]
            if tiles is not None:
                tiled, found[name] = found[name], np.empty(size, np.uint8)
                tiles.reorder(tiled, found[name], tiled=True)
        return found


@dataclass(frozen=True)
class PackPlan:
    """What a pack of a model is: all of it but the experts. `sources`: where these are in the model's `files`."""

    header: bytes
    files: tuple[Path, ...]
    layers: tuple[PackedLayer, ...]
    sources: tuple[FileLayer, ...]

    @property
    def experts(self) -> int:
        return sum(layer.experts for layer in self.layers)

    @property
    def digests_at(self) -> int:
        """Where the digests begin, one for each expert."""
        return -(-len(self.header) // PAGE) * PAGE

    @property
    def expert_bytes(self) -> int:
        return sum(layer.experts * layer.slot_bytes for layer in self.layers)

    @property
    def nbytes(self) -> int:
        """Of the whole file."""
        return self.layers[0].at + self.expert_bytes

    def at(self, path: Path) -> tuple[PackedLayer, ...]:
        """The layers, in a file."""
        return tuple(PackedLayer(path, each.stacks, each.experts, each.tiles, each.sizes, each.at) for each in self.layers)


@dataclass(frozen=True)
class Pack:
    """A pack that belongs to the model that it was opened for."""

    path: Path
    identity: Identity
    layers: tuple[PackedLayer, ...]

    def only(self, wanted: Sequence[Stacks]) -> Pack:
        """With these layers of it alone, in this order."""
        layers = {layer.stacks: layer for layer in self.layers}
        return Pack(self.path, self.identity, tuple(layers[stacks] for stacks in wanted))


def plan_pack(
    mixtures: Sequence[tuple[Stacks, int]],
    weights: Mapping[str, QuantisedStack],
    orders: Mapping[str, TileOrder],
    files: Mapping[Path, Identity],
) -> PackPlan:
    """The pack of a model, as of `stacks_of` and `Backend.tile_orders`. Reads a little of each file; raises ModelFormatError."""
    sources = tuple(FileLayer({name: weights[name] for name in stacks}) for stacks, _ in mixtures)
    layers, used, places = list[PackedLayer](), dict[Path, int](), hashlib.sha256()
    for source in sources:
        sizes = tuple(sum(part.nbytes for part in weights[name].ranges) // source.experts for name in source.stacks)
        tiles = tuple(_tiles(weights[name], orders.get(name), size) for name, size in zip(source.stacks, sizes, strict=True))
        layers.append(PackedLayer(Path(), source.stacks, source.experts, tiles, sizes))
        for name in source.stacks:
            for part in weights[name].ranges:
                places.update(f"{used.setdefault(part.path, len(used))} {part.offset} {part.nbytes}\n".encode())
    description = {
        "version": VERSION,
        "files": [_describe_file(path, files[path]) for path in used],
        "places": places.hexdigest(),
        "layers": [_describe_layer(layer) for layer in layers],
    }
    header = _header(description)
    at = -(-len(header) // PAGE) * PAGE + -(-DIGEST * sum(layer.experts for layer in layers) // PAGE) * PAGE
    placed = []
    for layer in layers:
        placed.append(PackedLayer(layer.path, layer.stacks, layer.experts, layer.tiles, layer.sizes, at))
        at += layer.experts * layer.slot_bytes
    return PackPlan(header, tuple(used), tuple(placed), sources)


def _tiles(weight: QuantisedStack, order: TileOrder | None, nbytes: int) -> Tiles | None:
    tiles = None if order is None else Tiles.of(order, weight.quant, weight.shape[-1])
    return None if tiles is None or nbytes % tiles.nbytes else tiles


def _header(description: Mapping[str, Any]) -> bytes:
    text = json.dumps(description, sort_keys=True, separators=(",", ":")).encode()
    return MAGIC + len(text).to_bytes(8, "little") + text


def _describe_layer(layer: PackedLayer) -> dict[str, Any]:
    orders = [None if each is None else [each.rows, each.row_bytes, each.group_bytes, list(each.pieces)] for each in layer.tiles]
    return {"stacks": list(layer.stacks), "experts": layer.experts, "sizes": list(layer.sizes), "orders": orders}


def _describe_file(path: Path, found: Identity) -> dict[str, Any]:
    """What tells a file of the model from others, also after both have been moved together: not its inode."""
    sample, (file, size) = hashlib.sha256(), open_regular(path)
    with file:
        for at in (0, max(0, size - _SAMPLE)):
            file.seek(at)
            sample.update(file.read(_SAMPLE))
    return {"name": path.name, "bytes": found[2], "time": found[3], "sample": sample.hexdigest()}


def pack_places(checkpoint: Path) -> tuple[Path, Path]:
    """Where a pack of a checkpoint is looked for: beside it, and in the cache, which may have a link to one elsewhere."""
    beside = checkpoint / f"model{SUFFIX}" if checkpoint.is_dir() else checkpoint.with_name(f"{checkpoint.name}{SUFFIX}")
    key = hashlib.sha256(os.fsencode(checkpoint.resolve())).hexdigest()[:16]
    return beside, cache_dir() / "packs" / f"{stem_of(checkpoint)[:100]}-{key}{SUFFIX}"


def link_pack(path: Path, places: tuple[Path, Path]) -> None:
    """Have a pack found that is at neither of its places. Raises OSError, also if a file is where the link goes."""
    _, link = places
    if os.path.lexists(link) and not link.is_symlink():
        raise FileExistsError(errno.EEXIST, "a pack is there; delete it first", str(link))
    link.parent.mkdir(parents=True, exist_ok=True)
    made = link.with_name(f"{link.name}.{os.getpid()}")
    made.symlink_to(path.absolute())
    os.replace(made, link)


def open_pack(path: Path, plan: PackPlan) -> Pack:
    """Raises ModelFormatError, which says why, for a pack that is not whole, not of this model as it is now, or damaged where it is
    looked at: `verify_pack` reads all of it."""
    found = identity(path)
    file, size = open_regular(path)
    with file:
        header = file.read(len(plan.header))
        if header != plan.header:
            file.seek(0)
            raise ModelFormatError(path, _difference(file.read(_MOST_HEADER), plan))
        if size != plan.nbytes:
            raise ModelFormatError(path, f"has {size} bytes instead of {plan.nbytes}")
        _check_some(path, file, plan)
    return Pack(path, found, plan.at(path))


def _check_some(path: Path, file: BinaryIO, plan: PackPlan) -> None:
    """Compare a handful of experts, spread over the layers, with their digests; reading all would take as long as `verify_pack`.

    The last is among them: a copy that ended early may have the whole size.
    """
    places, last = list[tuple[int, int]](), plan.experts - 1
    for layer in plan.layers:
        nbytes = layer.slot_bytes
        places += [(layer.at + expert * nbytes, nbytes) for expert in range(layer.experts)]
    for number in sorted({last * each // (CHECKED - 1) for each in range(CHECKED)}, reverse=True):
        file.seek(plan.digests_at + DIGEST * number)
        digest = file.read(DIGEST)
        at, nbytes = places[number]
        file.seek(at)
        if hashlib.sha256(file.read(nbytes)).digest() != digest:
            problem = "is damaged, or was not copied to its end" if number == last else "is damaged here"
            raise ModelFormatError(path, problem, offset=at)


def is_pack(path: Path, plan: PackPlan) -> bool:
    """Whether the whole pack of this model is there, as far as `open_pack` looks."""
    try:
        return bool(open_pack(path, plan))
    except (ModelFormatError, OSError):
        return False


def _difference(header: bytes, plan: PackPlan) -> str:
    """What a header says else than it should, in words."""
    wanted, found = _read_header(plan.header), _read_header(header)
    if wanted is None or found is None:
        return "is no pack of experts"
    if found.get("version") != VERSION:
        return "was written by another version of Lacewing"
    if found.get("files") != wanted["files"] or found.get("places") != wanted["places"]:
        return "was made from another model, or from this one before it changed"
    return "was made for kernels of another CPU or of another version of Lacewing"


def _read_header(header: bytes) -> dict[str, Any] | None:
    start = len(MAGIC) + 8
    if not header.startswith(MAGIC) or len(header) < start:
        return None
    try:
        description = json.loads(header[start : start + int.from_bytes(header[len(MAGIC) : start], "little")])
    except (ValueError, RecursionError, MemoryError):
        return None
    return description if isinstance(description, dict) else None


@dataclass(frozen=True)
class FoundPack:
    """What is at the places of a pack: one that is used, or why it is not; neither: there is none."""

    pack: Pack | None = None
    problem: str = ""


def find_pack(places: Sequence[Path], plan: Callable[[], PackPlan]) -> FoundPack:
    """The first that belongs to the model; `plan` is made if there is any. Raises nothing for those that cannot be used."""
    found, problem = [path for path in places if os.path.lexists(path)], ""
    if not found:
        return FoundPack()
    expected = plan()
    for path in found:
        try:
            return FoundPack(open_pack(path, expected))
        except (ModelFormatError, OSError) as error:
            problem = problem or f"the pack is not used: {error}; `lacewing pack` rewrites it"
    return FoundPack(None, problem)
