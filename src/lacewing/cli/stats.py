"""`lacewing stats`: which experts a mixture of experts uses for a text."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lacewing.api import Model
from lacewing.cli.models import path_of
from lacewing.cli.progress import Reporter
from lacewing.console.output import aligned_lines, clean_line, notice, print_json, print_text
from lacewing.errors import OptionError
from lacewing.formats.files import read_named
from lacewing.options import LoadOptions, counted
from lacewing.paths import user_path
from lacewing.placement.info import ModelInfo

MAX_TEXT = 64 * 2**20  # bytes: more than any context holds
_HEAT, _NUMBERS = 64, 66  # characters of a terminal's line: for the load at most, for all else

if TYPE_CHECKING:
    from lacewing.engine.routing import LayerRouting
    from lacewing.models import ModelSpec


def stats(name: str, text: Path, options: LoadOptions, *, as_json: bool, png: Path | None, trace: Path | None) -> None:
    """Run the text of a file, print the statistics, write the picture and the trace."""
    from lacewing.engine.routing import as_dict, routers, watch_text

    text, png, trace = user_path(text), png and user_path(png), trace and user_path(trace)
    words = _read(text)
    for target in filter(None, (png, trace)):
        if target.is_dir() or not target.absolute().parent.is_dir():
            raise OptionError(f"{target} cannot be written: it is a folder, or its folder does not exist")
    opened = ModelInfo(path_of(name), options)
    _keep_apart([target for target in (png, trace) if target is not None], [text, *opened.checkpoint.files])
    spec = opened.spec
    if not routers(spec.program):
        raise OptionError(f"{spec.name} is a dense model: it has no experts; give a mixture of experts")
    with ExitStack() as stack:
        lines = stack.enter_context(_open(trace)) if trace is not None else None
        progress = stack.enter_context(Reporter())
        model = stack.enter_context(Model(opened, progress))
        for told in model.notices:
            notice(told)
        tokenizer = model.tokenizer
        begin = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
        write = lines.write if lines is not None else None
        layers = watch_text(model.engine, tokenizer.encode(words), begin, write, progress).layers()
    if png is not None:
        _write_picture(png, layers, spec.name)
    if as_json:
        print_json(_facts(spec, text, as_dict(layers)))
        return
    _print(spec, layers)
    if png is not None:
        print_text(f"{clean_line(str(png))}: layers from the top, experts from the left; blue none, white an even share, red more")


def _read(path: Path) -> str:
    try:
        return read_named(path, MAX_TEXT).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise OptionError(f"{path} is not UTF-8 text") from None


def _keep_apart(targets: list[Path], sources: list[Path]) -> None:
    """Nothing that is read is written over, nor one result by the other."""
    kept = [source.resolve() for source in sources]
    for target in targets:
        if target.resolve() in kept:
            raise OptionError(f"{target} cannot be written: it is the text, the model or the other result; give another name")
        kept.append(target.resolve())


def _open(path: Path) -> Any:
    try:
        return path.open("w", encoding="ascii", newline="\n")
    except OSError as error:
        raise OptionError(f"{path} cannot be written: {error.strerror}") from None


def _write_picture(path: Path, layers: list[LayerRouting], name: str) -> None:
    from lacewing.cli.picture import heat_map

    loads = [each.heat(each.experts) for each in layers]
    try:
        path.write_bytes(heat_map(loads, f"{name}: load of experts (columns) in layers (rows), {layers[0].tokens} tokens"))
    except OSError as error:
        raise OptionError(f"{path} cannot be written: {error.strerror}") from None


def _facts(spec: ModelSpec, text: Path, found: dict[str, Any]) -> dict[str, Any]:
    from lacewing.engine.routing import routers

    for layer, router in zip(found["layers"], routers(spec.program), strict=True):
        layer |= {"gating": router.gating, "groups": router.groups}
    tokens = found["layers"][0]["tokens"]
    return {"model": spec.name, "architecture": spec.architecture, "text": str(text), "tokens": tokens, **found}


def _print(spec: ModelSpec, layers: list[LayerRouting]) -> None:
    """For a terminal by rich, else in aligned columns."""
    from lacewing.console.heat import LEGEND, table
    from lacewing.engine.routing import has_sequence_loss

    first = layers[0]
    tokens, depth = counted(first.tokens, "token"), counted(len(layers), "layer")
    head = f"{clean_line(spec.name)}: {tokens}, {first.active} of {first.experts} experts each, in {depth}"
    sequences = has_sequence_loss(spec.program)
    if not _terminal():
        print_text("\n".join([head, LEGEND, *aligned_lines(table(layers, sequences=sequences))]))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    found = table(layers, sequences=sequences, columns=min(_HEAT, max(_NUMBERS // 8, console.width - _NUMBERS)))
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in found.headings:
        shown.add_column(heading, no_wrap=True)
    for row in found.rows:
        shown.add_row(*row)
    console.print(Text(f"{head}\n{LEGEND}\n"), shown)


def _terminal() -> bool:
    return sys.stdout.isatty()
