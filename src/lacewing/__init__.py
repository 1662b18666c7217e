"""Lacewing runs large language models on the hardware you have."""

# Everything comes with its first use, so that `import lacewing` costs nothing; a person may press Ctrl-C even now.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lacewing.api import Model, load, load_tokenizer
    from lacewing.backends import init_backend
    from lacewing.errors import LacewingError
    from lacewing.options import Sampling

__version__ = "0.1.0"
__all__ = ["LacewingError", "Model", "Sampling", "__version__", "init_backend", "load", "load_tokenizer"]
_PLACES = {"LacewingError": "errors", "Sampling": "options", "init_backend": "backends"}


def __getattr__(name: str) -> "Any":
    if name not in __all__:
        raise AttributeError(f"module 'lacewing' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"lacewing.{_PLACES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return __all__
