"""The Python API: open a checkpoint, run it, change where its weights live."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from lacewing import hub
from lacewing.api.model import Model
from lacewing.options import LoadArguments, make_load_options
from lacewing.placement.info import ModelInfo

if TYPE_CHECKING:
    from lacewing.text.tokenizer import Tokenizer

__all__ = ["Model", "load", "load_tokenizer"]


def load(name: str | Path, **options: Unpack[LoadArguments]) -> Model:
    """Open a model: a GGUF or safetensors file, a directory, or the name of a fetched model.

    The options are those of `LoadArguments`. A model that does not fit the GPU is shared out between it and the CPU.
    Every error is a LacewingError.
    """
    progress = options.get("progress")
    return Model(ModelInfo(hub.resolve(name), make_load_options(dict(options))), progress)


def load_tokenizer(name: str | Path, *, follow_links: bool = False) -> Tokenizer:
    """The tokenizer of a checkpoint alone: a GGUF file, a directory or its tokenizer.json; weights are not needed.

    Raises TokenizerError, ModelFormatError.
    """
    from lacewing.formats import open_texts
    from lacewing.text.tokenizer import Tokenizer

    return Tokenizer.from_checkpoint(open_texts(hub.resolve(name), follow_links=follow_links))
