"""Families of tiny checkpoints whose weights have shapes of their own: a module each with a `FAMILY`, found by itself."""

from __future__ import annotations

import importlib
import pkgutil

from tests.families.family import Family

FAMILIES: dict[str, Family] = {}  # by model_type
for _module in pkgutil.iter_modules(__path__):
    if _module.name != "family":
        _found: Family = importlib.import_module(f"{__name__}.{_module.name}").FAMILY
        FAMILIES |= dict.fromkeys(_found.types, _found)
