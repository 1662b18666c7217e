"""Fetched models: getting one, and the list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lacewing import hub
from lacewing.cli.progress import Reporter
from lacewing.console.output import Table, aligned_lines, detail, print_facts, print_text
from lacewing.errors import LacewingError, OptionError
from lacewing.options import LoadOptions, format_bytes
from lacewing.paths import user_path


def path_of(name: str) -> Path:
    """The path to open; a model's name or URL is fetched first when it is not here."""
    with Reporter(patience=0) as progress:
        path = hub.path_of(name, progress)
    detail(f"{name} is {path}")
    return path


def names_model(word: str) -> bool:
    """Whether a word can only be a model: a name, a URL, or a file or folder that looks like one."""
    if hub.is_reference(word) or word.endswith((".gguf", ".safetensors")):
        return True
    try:
        folder = user_path(word)
        return (folder / "config.json").exists() or any(folder.glob("*.gguf"))
    except (OSError, OptionError):
        return False


def complete_model(incomplete: str) -> list[str]:
    """Names that begin so; a shell completes files by itself where there is none."""
    return [name for name in hub.known_names() if name.startswith(incomplete)]


def pull(name: str) -> None:
    """Fetch a model and print where it is."""
    from lacewing.hub.pull import pull

    with Reporter(patience=0) as progress:
        path = pull(name, progress).path
    print_text(str(path))


def show(*, as_json: bool) -> None:
    """A row for each fetched model, for what is partly fetched, and for each known name that is neither."""
    here = [_facts(cached) for cached in hub.list_models()]
    partial: list[dict[str, Any]] = [
        {"name": each.name, "fetched": False, "path": str(each.path), "bytes": each.nbytes} for each in hub.list_partial()
    ]
    others = [
        {"name": name, "fetched": False, "about": hub.NAMED[name].about}
        for name in sorted(set(hub.NAMED) - {row["name"] for row in (*here, *partial)})
    ]
    print_facts({"models": [*here, *partial, *others]}, _page, as_json=as_json)


def _page(facts: dict[str, Any]) -> str:
    here = [row for row in facts["models"] if row["fetched"]]
    partial, others = ([row for row in facts["models"] if not row["fetched"] and key in row] for key in ("path", "about"))
    rows = [(row["name"], row["quant"], str(row["context"] or ""), format_bytes(row["bytes"]), _where(row)) for row in here]
    rows += [(row["name"], "", "", format_bytes(row["bytes"]), f"partly fetched: {row['path']}") for row in partial]
    rows += [(row["name"], "", "", "", f"not fetched: {row['about']}") for row in others]
    return "\n".join(aligned_lines(Table(("name", "quant", "context", "size", "path"), tuple(rows))))


def _facts(cached: hub.Cached) -> dict[str, Any]:
    """What the headers say; a model that cannot be opened has a problem instead."""
    from lacewing.placement.info import ModelInfo

    facts = {"name": cached.name, "fetched": True, "path": str(cached.path), "bytes": cached.nbytes, "source": cached.source}
    try:
        opened = ModelInfo(cached.path, LoadOptions(), warm=False, whole=False)
    except LacewingError as error:
        return facts | {"quant": "", "context": None, "architecture": None, "problem": str(error)}
    return facts | {"quant": opened.quant, "context": opened.spec.trained_context, "architecture": opened.spec.architecture}


def _where(row: dict[str, Any]) -> str:
    return f"{row['path']} (cannot be used: {row['problem']})" if "problem" in row else str(row["path"])
