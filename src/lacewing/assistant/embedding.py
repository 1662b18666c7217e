"""Texts to vectors: the hidden states that a model leaves behind a text, pooled, cut and normalised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lacewing.engine.collect import POOLINGS
from lacewing.errors import OptionError
from lacewing.options import shown_value

if TYPE_CHECKING:
    from lacewing.engine.engine import Cancelled, Engine
    from lacewing.options import Progress
    from lacewing.text.tokenizer import Tokenizer

POOLING = "last"  # where neither caller nor checkpoint names one: only the last token has seen the whole text


def check_texts(texts: Sequence[str]) -> None:
    """Raises OptionError for what are no texts, and empty ones."""
    for number, text in enumerate(texts):
        if not isinstance(text, str) or not text:
            raise OptionError(f"text {number + 1} to embed is {shown_value(text)}; it must be a string that is not empty")


def embed(
    engine: Engine,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pooling: str = POOLING,
    *,
    normalise: bool = True,
    dimensions: int | None = None,
    cancelled: Cancelled | None = None,
    progress: Progress | None = None,
) -> list[np.ndarray]:
    """Of each text float32 (D,), or (T, D) where `pooling` is "none"; see `finished`. Texts run together as `Engine.embed` says.

    Raises OptionError, ContextOverflowError for a text that is too long, Cancelled.
    """
    if pooling not in POOLINGS:
        raise OptionError(f"`pooling` is {shown_value(pooling)}; it must be one of {', '.join(POOLINGS)}")
    check_texts(texts)
    found = engine.embed([tokenizer.encode_whole(text) for text in texts], pooling, cancelled, progress)
    return [finished(hidden, normalise=normalise, dimensions=dimensions) for hidden in found]


def finished(hidden: np.ndarray, *, normalise: bool = True, dimensions: int | None = None) -> np.ndarray:
    """Float32 (..., D): the first `dimensions` values alone, where given, then each vector divided by its length.

    Only models trained for it (Matryoshka) keep their meaning when they are cut. Raises OptionError for more than there are.
    """
    width = hidden.shape[-1]
    if dimensions is not None:
        if isinstance(dimensions, bool) or not isinstance(dimensions, int) or not 1 <= dimensions <= width:
            raise OptionError(f"`dimensions` is {shown_value(dimensions)}; it must be an integer from 1 to {width}")
        hidden = hidden[..., :dimensions]
    if not normalise:
        return hidden.astype(np.float32)
    exact = hidden.astype(np.float64)
    lengths = np.sqrt((exact * exact).sum(axis=-1, keepdims=True))
    return np.asarray((exact / np.where(lengths > 0, lengths, 1.0)).astype(np.float32))
