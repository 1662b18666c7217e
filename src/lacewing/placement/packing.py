"""Packs of a model's experts, for the commands: where one is written, what it would be, whether one is there, and what it gives."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lacewing.errors import OptionError
from lacewing.options import CPU
from lacewing.paths import user_path
from lacewing.placement.info import ModelInfo
from lacewing.placement.plan import MemoryPlan

if TYPE_CHECKING:
    from lacewing.weights.experts.pack import FoundPack, PackPlan


def plan_of(info: ModelInfo) -> PackPlan:
    """The pack of a model for this machine. Raises OptionError for a model, or a system, that has none; ModelFormatError."""
    from lacewing.backends import init_backend
    from lacewing.weights.experts import stacks_of
    from lacewing.weights.experts.pack import plan_pack

    program, tensors = info.spec.program, info.spec.tensors
    mixtures = stacks_of(program)
    if not mixtures:
        raise OptionError(f"{info.spec.name} is no mixture of experts; there is nothing to pack")
    backend = init_backend(CPU)
    if not backend.streams_experts:
        raise OptionError("experts are not streamed on this system, so that nothing would use a pack")
    return plan_pack(mixtures, tensors, backend.tile_orders(program, tensors), info.checkpoint.identities)


def find_pack_of(info: ModelInfo, plan: PackPlan) -> FoundPack:
    """That streaming would use."""
    from lacewing.weights.experts.pack import find_pack, pack_places

    return find_pack(pack_places(info.checkpoint.path), lambda: plan)


def target_of(info: ModelInfo, output: str | None) -> Path:
    """Where a pack is to be written: where a person says, a file or a folder, else beside the model, or in the cache if that
    folder cannot be written to. Raises OptionError, also for a folder that does not exist."""
    from lacewing.weights.experts.pack import pack_places

    beside, cached = pack_places(info.checkpoint.path)
    if output is None:
        return beside if os.access(beside.parent, os.W_OK) else cached
    path = user_path(output).absolute()
    target = path / beside.name if path.is_dir() or output.endswith(("/", os.sep)) else path
    if not target.parent.is_dir():
        raise OptionError(f"there is no folder {target.parent}; make it first, or choose another place with `--output`")
    if target.resolve() in {file.resolve() for file in (*info.checkpoint.files, info.checkpoint.path)}:
        raise OptionError(f"{target} is the model itself; choose another place")
    return target


def place_of(info: ModelInfo, plan: PackPlan, here: FoundPack, output: str | None) -> Path:
    """Where a pack is to be written, or is already: `target_of`, unless streaming has one.

    Raises OptionError if streaming would use that one all the same, because it is looked for first.
    """
    target = target_of(info, output)
    if here.pack is None or here.pack.path.resolve() == target.resolve():
        return target
    if output is None:
        return here.pack.path
    if here.pack.path.is_symlink():  # to one elsewhere, which stays
        return target
    raise OptionError(f"streaming uses {here.pack.path}, which it looks for first; delete that before you pack to another place")


def describe_streaming(info: ModelInfo, memory: MemoryPlan) -> dict[str, Any]:
    """As plain values, for `lacewing info`: what a pack of a mixture is or would be, and, if the memory plan streams the model,
    what to expect of that, for which the disk is measured. {} for what cannot be streamed here."""
    from dataclasses import asdict

    from lacewing.weights.experts.expected import expected
    from lacewing.weights.experts.probe import AsPacked, measure

    try:
        plan = plan_of(info)
    except OptionError:
        return {}
    found, identities = find_pack_of(info, plan), info.checkpoint.identities
    pack: dict[str, Any] = {
        "path": None if found.pack is None else str(found.pack.path),
        "problem": found.problem,
        "bytes": plan.nbytes,
        "read_bytes": plan.layers[0].slot_bytes,
        "reads": len(plan.sources[0].reads(0).parts),
        "in_order": any(layer.tiled for layer in plan.layers),
    }
    if memory.slots is None:
        return {"pack": pack}
    layers = memory.mixtures
    if found.pack is not None:
        disk = measure(found.pack.layers, {found.pack.path: found.pack.identity})
    else:
        disk = measure(plan.sources, identities)
        packed = measure([AsPacked(source, identities) for source in plan.sources], identities, way=disk.way)
        told = expected(layers, memory.slots, packed.rate)
        pack |= {"disk_rate": told.disk_rate, "most_tokens": dict(told.most_tokens)}
    how = {"read_bytes": disk.nbytes, "direct": disk.way.direct, "threads": disk.way.threads}
    return {"streaming": asdict(expected(layers, memory.slots, disk.rate)) | how, "pack": pack}
