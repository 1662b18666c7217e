"""`lacewing pack`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lacewing.cli.models import path_of
from lacewing.cli.progress import Reporter
from lacewing.console.interrupt import Interrupt
from lacewing.console.output import clean_line, notice, print_facts
from lacewing.errors import Cancelled, OptionError
from lacewing.options import LoadOptions, format_bytes
from lacewing.placement.info import ModelInfo
from lacewing.placement.packing import find_pack_of, place_of, plan_of, target_of

if TYPE_CHECKING:
    from lacewing.weights.experts.pack import FoundPack


def pack(name: str, options: LoadOptions, output: str | None, *, verify: bool, as_json: bool) -> None:
    """Write the pack of a model, unless it is there, or compare it; print what became of it."""
    from lacewing.weights.experts.pack import is_pack, pack_places
    from lacewing.weights.experts.packing import verify_pack, write_pack

    info = ModelInfo(path_of(name), options, warm=False)
    plan, began, files = plan_of(info), time.perf_counter(), info.checkpoint.identities
    here = find_pack_of(info, plan)
    target = target_of(info, output) if verify else place_of(info, plan, here, output)
    made: dict[str, Any] = {"path": str(target), "bytes": plan.nbytes, "experts": plan.experts, "written": 0, "kept": 0}
    with Reporter(patience=0) as progress, Interrupt() as interrupt:
        try:
            if verify:
                target = _to_verify(here, target, output)
                verify_pack(plan, files, target, progress, interrupt)
            elif not is_pack(target, plan):
                packed = write_pack(plan, files, target, progress, interrupt)
                made |= {"written": packed.nbytes, "kept": packed.kept}
        except Cancelled as cancelled:
            notice(str(cancelled))
            raise KeyboardInterrupt from None
    made |= {"path": str(target), "verified": verify, "seconds": round(time.perf_counter() - began, 2)}
    print_facts(made, _page, as_json=as_json)
    if not verify and target not in (places := pack_places(info.checkpoint.path)):
        _link(target, places)


def _link(target: Path, places: tuple[Path, Path]) -> None:
    """Have streaming find a pack elsewhere. Raises OptionError."""
    from lacewing.weights.experts.pack import link_pack

    try:
        link_pack(target, places)
    except OSError as error:
        raise OptionError(
            f"{target} is whole, but streaming does not find it: {places[1]} cannot be made a link to it: {error.strerror}; "
            f"link it yourself, as {places[0]}"
        ) from None


def _to_verify(found: FoundPack, target: Path, output: str | None) -> Path:
    """The pack to compare. Raises OptionError if there is none."""
    absent = f"there is no pack to compare: {target} does not exist"
    if output is not None:
        if not target.exists():
            raise OptionError(absent)
        return target
    if found.pack is None:
        raise OptionError(found.problem or absent)
    return found.pack.path


def _page(made: dict[str, Any]) -> str:
    path, size = clean_line(made["path"]), f"{made['experts']} experts, {format_bytes(made['bytes'])}"
    if made["verified"]:
        return f"{path}: {size}, all as in the model ({made['seconds']:.1f} s)"
    if not made["written"] + made["kept"]:
        return f"{path} is there already: {size}; --verify compares it with the model"
    rate = format_bytes(made["written"] / max(made["seconds"], 1e-9))
    kept = f", including {format_bytes(made['kept'])} written by an earlier try" if made["kept"] else ""
    return f"{path}: {size}{kept}, in {made['seconds']:.1f} s ({rate}/s); streaming uses it from now on"
