"""Which checkpoints were trained to rank documents: Qwen3's rerankers, causal models that answer "yes" or "no" (Qwen3 Embedding,
arXiv:2506.05176). GGUF files of them have the two rows of the head apart, as `cls.output.weight`, and the pooling "rank"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lacewing.formats.checkpoint import Checkpoint

CLASSIFIER = "cls.output.weight"
LABELS = ("yes", "no")  # the rows of CLASSIFIER, where the file does not say which they are
_ARCHITECTURES = ("qwen3",)
_RANK = 4  # of `pooling_type`
_NAME = "qwen3-reranker"


def is_reranker(checkpoint: Checkpoint) -> bool:
    """Whether its answers are for ranking, by its pooling or, where it says nothing of it, by its name."""
    metadata = checkpoint.metadata
    if checkpoint.format == "gguf":
        architecture = metadata.get("general.architecture")
        if metadata.get(f"{architecture}.pooling_type") == _RANK and CLASSIFIER in checkpoint.tensors:
            return architecture in _ARCHITECTURES
        names: list[Any] = [metadata.get(f"general.{key}") for key in ("name", "basename")]
    else:
        config = metadata.get("config.json")
        config = config if isinstance(config, dict) else {}
        architecture = config.get("model_type")
        names = [config.get("_name_or_path"), checkpoint.path.resolve().name]
    named = any(isinstance(name, str) and _NAME in name.lower().replace(" ", "-") for name in names)
    return architecture in _ARCHITECTURES and named


def labels_of(checkpoint: Checkpoint) -> Sequence[str]:
    """What the rows of CLASSIFIER stand for."""
    metadata = checkpoint.metadata
    found = metadata.get(f"{metadata.get('general.architecture')}.classifier.output_labels")
    return LABELS if found is None or isinstance(found, (str, bytes, int, float)) else tuple(map(str, found))
