"""What the tests must know of a family to write its tiny checkpoints in both formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Config = dict[str, Any]
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Family:
    types: Mapping[str, tuple[str, str]]  # model_type: architecture of GGUF, class of transformers
    cases: Mapping[str, Config]  # name: what its config.json has beyond or in place of the base of `tests.checkpoints`
    shapes: Callable[[Config], dict[str, tuple[int, ...]]]  # of all weights, under their Hugging Face names
    metadata: Callable[[Config], dict[str, Any]]  # keys of GGUF beyond those of a dense model
    tensors: Callable[[Config, Arrays], Arrays]  # weights under their GGUF names, ready to multiply
    only_huggingface: tuple[str, ...] = ()  # cases that a GGUF file cannot say
    draw: Callable[[str, tuple[int, ...]], np.ndarray | None] = lambda name, shape: None  # values of a weight; None: the usual ones


def renamed(weights: Arrays, names: Mapping[str, str]) -> Arrays:
    """Weights under their GGUF names: `names` maps the part of a name within its layer, without "model." and ".weight"."""
    found: Arrays = {}
    for name, value in weights.items():
        stem, _, kind = name.removeprefix("model.").rpartition(".")
        layer, part = "", stem
        if stem.startswith("layers."):
            _, number, part = stem.split(".", 2)
            layer = f"blk.{number}."
        found[f"{layer}{names[part]}.{kind}"] = np.ascontiguousarray(value)
    return found
