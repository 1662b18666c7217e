"""WGSL from the templates in this folder: shapes and places are constants of the text, so that the compiler sees them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import DictLoader, Environment, StrictUndefined


def kernel_files(folder: Path) -> dict[str, Path]:
    """Every .wgsl file below a folder by its name, which stands for it wherever it is. Raises ValueError for two of one name."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.wgsl")):
        if path.name in found:
            raise ValueError(f"two kernels are named {path.name}: {found[path.name]} and {path}")
        found[path.name] = path
    return found


@cache
def _environment() -> Environment:
    sources = {name: path.read_text(encoding="utf-8") for name, path in kernel_files(Path(__file__).parent).items()}
    return Environment(
        loader=DictLoader(sources),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        line_comment_prefix="//!",
        autoescape=False,  # WGSL, not HTML
    )


def shader(name: str, **constants: object) -> str:
    """The text of the kernel `name` with its constants filled in; one that is missing is an error."""
    return _environment().get_template(f"{name}.wgsl").render(**constants)


def number(value: float) -> str:
    """A float32 constant that WGSL reads back exactly."""
    text = repr(float(value))
    return f"f32({text})" if "e" in text or "." in text else f"f32({text}.0)"
