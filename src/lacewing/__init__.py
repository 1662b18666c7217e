"""Lacewing runs large language models on the hardware you have."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lacewing.errors import LacewingError
from lacewing.options import Sampling

if TYPE_CHECKING:
    from lacewing.api import Model, load, load_tokenizer
    from lacewing.backends import init_backend

__version__ = "0.1.0"
__all__ = ["LacewingError", "Model", "Sampling", "__version__", "init_backend", "load", "load_tokenizer"]


def __getattr__(name: str) -> Any:
    # NumPy and the rest come with the first use, so that `import lacewing` costs a few milliseconds.
    if name == "init_backend":
        return importlib.import_module("lacewing.backends").init_backend
    if name in ("Model", "load", "load_tokenizer"):
        return getattr(importlib.import_module("lacewing.api"), name)
    raise AttributeError(f"module 'lacewing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
