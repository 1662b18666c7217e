"""How often the experts of a model were used, kept from one session to the next in Lacewing's cache: one small file a model.

It only says which experts come to the slots first. The file is named after what the model is, whatever it is called and wherever it
lies: its stacks, and some of their bytes. A file that is damaged, or of another model, is ignored and overwritten.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lacewing.errors import ModelFormatError
from lacewing.formats.checkpoint import ByteRange, Identity
from lacewing.formats.files import read_bounded
from lacewing.formats.read import Reader
from lacewing.paths import cache_dir
from lacewing.weights.experts.source import Stack, Stacks

_LARGEST = 16 * 2**20  # bytes of a file that is read
_SAMPLE = 4096  # bytes of a stack that its model is known by
_MOST = 1e12  # uses


def history_dir() -> Path:
    """Not made here."""
    return cache_dir() / "experts"


def model_key(weights: Mapping[str, Stack], layers: Sequence[Stacks], files: Mapping[Path, Identity]) -> str:
    """What a model is known by: names and shapes of its stacks, and the first bytes of the first and the last of them.

    Raises ModelFormatError for a file that cannot be read.
    """
    names = [name for stacks in layers for name in stacks]
    found = hashlib.sha256(json.dumps([(name, weights[name].shape, _nbytes(weights[name])) for name in names]).encode())
    reader = Reader(files)
    with contextlib.closing(reader):
        for name in (names[0], names[-1]):
            first = weights[name].ranges[0]
            sample = np.empty(min(_SAMPLE, first.nbytes), np.uint8)
            reader.into(ByteRange(first.path, first.offset, sample.nbytes), sample)
            found.update(sample.tobytes())
    return found.hexdigest()


def _nbytes(stack: Stack) -> int:
    return sum(part.nbytes for part in stack.ranges)


class History:
    """The file of one model in a folder. `problem`: why it was ignored; empty: it was read, or there is none."""

    def __init__(self, folder: Path, key: str):
        self.path, self._key = folder / f"{key[:32]}.json", key
        self.problem = ""

    def read(self, experts: Sequence[int]) -> list[np.ndarray] | None:
        """Uses of each layer's experts, float64 (E,), for layers of so many; None: there is no such file, or it is ignored."""
        try:
            if not self.path.exists():
                return None
            kept = json.loads(read_bounded(self.path, _LARGEST))
            if not isinstance(kept, dict) or kept.get("model") != self._key:
                raise ValueError("it is of another model")
            found = [np.array(layer, np.float64) for layer in kept["layers"]]
            if [layer.shape for layer in found] != [(count,) for count in experts]:
                raise ValueError("it has other layers")
            if not all(np.all((layer >= 0) & (layer < _MOST)) for layer in found):  # no NaN either
                raise ValueError("it has numbers that are no counts")
        except (ModelFormatError, OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
            reason = error.problem if isinstance(error, ModelFormatError) else str(error)
            self.problem = f"the usage history of experts {self.path} is ignored, and will be written anew: {reason}"
            return None
        return found

    def write(self, layers: Sequence[np.ndarray]) -> None:
        """Whole or not at all, and only for this person to read; of several processes the last one counts.

        Where the cache cannot be written, nothing is kept.
        """
        rounded = [[float(f"{uses:.3g}") for uses in layer.tolist()] for layer in layers]
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, partial = tempfile.mkstemp(dir=self.path.parent, prefix=f"{self.path.stem}.", suffix=".part")  # 0600
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump({"model": self._key, "layers": rounded}, file)
                os.replace(partial, self.path)
            finally:
                Path(partial).unlink(missing_ok=True)
