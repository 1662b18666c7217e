"""`lacewing pack`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lacewing.cli.models import path_of
from lacewing.cli.progress import Reporter
from lacewing.console.interrupt import Interrupt
from lacewing.console.output import clean_line, print_facts
from lacewing.errors import Cancelled, OptionError
from lacewing.options import LoadOptions, format_bytes
from lacewing.placement.info import ModelInfo
from lacewing.placement.packing import find_pack_of, plan_of, target_of

if TYPE_CHECKING:
    from lacewing.weights.experts.pack import FoundPack


def pack(name: str, options: LoadOptions, output: str | None, *, verify: bool, as_json: bool) -> None:
    """Write the pack of a model, unless it is there, or compare it; print what became of it."""
    from lacewing.weights.experts.pack import link_pack, pack_places
    from lacewing.weights.experts.packing import verify_pack, write_pack

    info = ModelInfo(path_of(name), options, warm=False)
    plan, began, files = plan_of(info), time.perf_counter(), info.checkpoint.identities
    here = find_pack_of(info, plan)
    target = target_of(info, output)
    facts: dict[str, Any] = {"path": str(target), "bytes": plan.nbytes, "experts": plan.experts, "written": 0, "kept": 0}
    with Reporter(patience=0) as progress, Interrupt() as interrupt:
        try:
            if verify:
                facts["path"] = str(_to_verify(here, target, output))
                verify_pack(plan, files, Path(facts["path"]), progress, interrupt)
            elif here.pack is not None and output is None:
                facts["path"] = str(here.pack.path)
            else:
                made = write_pack(plan, files, target, progress, interrupt)
                facts |= {"written": made.nbytes, "kept": made.kept}
        except Cancelled:
            raise KeyboardInterrupt from None
    if not verify and target not in (places := pack_places(info.checkpoint.path)) and facts["path"] == str(target):
        link_pack(target, places)
    print_facts(facts | {"verified": verify, "seconds": round(time.perf_counter() - began, 2)}, _page, as_json=as_json)


def _to_verify(found: FoundPack, target: Path, output: str | None) -> Path:
    """The pack to compare. Raises OptionError if there is none."""
    if output is not None:
        return target
    if found.pack is None:
        raise OptionError(found.problem or f"there is no pack to compare: {target} does not exist")
    return found.pack.path


def _page(facts: dict[str, Any]) -> str:
    path, size = clean_line(facts["path"]), f"{facts['experts']} experts, {format_bytes(facts['bytes'])}"
    if facts["verified"]:
        return f"{path}: {size}, all as in the model ({facts['seconds']:.1f} s)"
    if not facts["written"]:
        return f"{path} is there already: {size}; --verify compares it with the model"
    rate = format_bytes(facts["written"] / max(facts["seconds"], 1e-9))
    kept = f", of which {format_bytes(facts['kept'])} had been written before" if facts["kept"] else ""
    return f"{path}: {size}{kept}, in {facts['seconds']:.1f} s ({rate}/s); streaming uses it from now on"
