"""How far our predictions are from llama.cpp's: the mean Kullback-Leibler divergence over a text."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import REAL, path_of
from benchmarks.sides import Side

TEXT = Path(__file__).with_name("text.txt")
_ROWS = 32  # at a time: a row of a large vocabulary is 1 MB


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Float64 (T, V), numerically safe."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def compare(truth: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """KL(truth || other) in nats, mean and largest over the rows (T, V), and how often both have the same favourite."""
    found = []
    for start in range(0, len(truth), _ROWS):
        p, q = log_probabilities(truth[start : start + _ROWS]), log_probabilities(other[start : start + _ROWS])
        found.append((np.exp(p) * (p - q)).sum(axis=1))
    rows = np.concatenate(found)
    return {
        "mean": float(rows.mean()),
        "max": float(rows.max()),
        "same_favourite": float((truth.argmax(1) == other.argmax(1)).mean()),
    }


def divergences(peer: Path, tokens: int, threads: int) -> dict[str, dict[str, Any]]:
    """For each real model: llama.cpp to us, llama.cpp to exact float32 arithmetic, and that to us.

    The second is the peer's own rounding (it quantises activations, as we do): no engine that computes exactly could be closer.
    """
    import lacewing

    results: dict[str, dict[str, Any]] = {}
    for name in REAL:
        path = path_of(name)
        ids = lacewing.load_tokenizer(path).encode_prompt(TEXT.read_text(encoding="utf-8"))[:tokens]
        context = len(ids) + 8
        sides = {
            "peer": ("peer", path, threads, context, peer),
            "ours": ("lacewing", path, threads, context, "lazy", "cpu"),
            "exact": ("lacewing", path, threads, context, "lazy", "reference"),
        }
        with tempfile.TemporaryDirectory() as folder:
            rows = {}
            for side, arguments in sides.items():
                file = f"{folder}/{side}.npy"
                with Side(*arguments) as process:
                    process.ask("logits", ids=ids, to=file)
                rows[side] = np.load(file, mmap_mode="r")
            results[name] = {
                "tokens": len(ids),
                "peer_to_ours": compare(rows["peer"], rows["ours"]),
                "peer_to_exact": compare(rows["peer"], rows["exact"]),
                "exact_to_ours": compare(rows["exact"], rows["ours"]),
            }
    return results
