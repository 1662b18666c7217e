"""How a checkpoint wants its hidden states pooled, where it was trained to give embeddings."""

from __future__ import annotations

from typing import Any

from lacewing.errors import UnsupportedModelError
from lacewing.formats.checkpoint import Checkpoint

_GGUF = ("none", "mean", "cls", "last", "rank")  # by `ARCHITECTURE.pooling_type`
_SENTENCE_TRANSFORMERS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_lasttoken": "last", "pooling_mode_cls_token": "cls"}
_FILE = "1_Pooling/config.json"
_KNOWN = ("mean", "last")


def pooling_of(checkpoint: Checkpoint) -> str | None:
    """ "mean" or "last"; None: the checkpoint says nothing, or wants none. Raises UnsupportedModelError for another way."""
    metadata = checkpoint.metadata
    if checkpoint.format == "gguf":
        value = metadata.get(f"{metadata.get('general.architecture')}.pooling_type")
        found = [_GGUF[value] if isinstance(value, int) and 0 <= value < len(_GGUF) else str(value)] if value is not None else []
    else:
        found = _of_folder(metadata.get(_FILE))
    if found in ([], ["none"]):
        return None
    if len(found) > 1 or found[0] not in _KNOWN:
        raise UnsupportedModelError(
            f"{checkpoint.path.name} was trained for embeddings of the kind {' and '.join(found)}, and {' and '.join(_KNOWN)} are "
            "known; pass `pooling` to have one of these all the same"
        )
    return found[0]


def _of_folder(config: Any) -> list[str]:
    if not isinstance(config, dict):
        return []
    modes = [name for name, value in config.items() if name.startswith("pooling_mode") and value is True]
    return [_SENTENCE_TRANSFORMERS.get(name, name) for name in modes]
