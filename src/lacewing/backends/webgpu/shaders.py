"""WGSL from the templates in `kernels/`: shapes and places are constants of the text, so that the compiler sees them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "kernels"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        line_comment_prefix="//!",
        autoescape=False,  # WGSL, not HTML
    )


def shader(name: str, **constants: object) -> str:
    """The text of `kernels/<name>.wgsl` with its constants filled in; one that is missing is an error."""
    return _environment().get_template(f"{name}.wgsl").render(**constants)


def number(value: float) -> str:
    """A float32 constant that WGSL reads back exactly."""
    text = repr(float(value))
    return f"f32({text})" if "e" in text or "." in text else f"f32({text}.0)"
