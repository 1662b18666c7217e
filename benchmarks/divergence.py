"""How far our predictions are from llama.cpp's: the mean Kullback-Leibler divergence over a text.

    python -m benchmarks.divergence --peer DIRECTORY [--peer-other DIRECTORY] [--tokens 512] [--threads 2]
    python -m benchmarks.divergence --backends cpu,cuda [--models FILE,...] [--tokens 512] [--threads 2]

The second compares backends with exact arithmetic (the reference backend) instead: the text in one run, whose products are those of
prompts, and token by token.

`--peer-other`: a second directory with llama.cpp's libraries, of another CPU build (all libggml-cpu-*.so but one taken away, say
libggml-cpu-haswell.so). How far llama.cpp is from itself there is how near to it any other engine can be asked to be.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
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


def divergences(peer: Path, tokens: int, threads: int, other: Path | None = None) -> dict[str, dict[str, Any]]:
    """For each real model: llama.cpp to us, llama.cpp to exact float32 arithmetic, and that to us; to its `other` build, if given.

    The second is the peer's own rounding (it quantises activations, as we do): no engine that computes exactly could be closer.
    """
    import lacewing

    results: dict[str, dict[str, Any]] = {}
    for name in REAL:
        path = path_of(name)
        ids = lacewing.load_tokenizer(path).encode_prompt(TEXT.read_text(encoding="utf-8"))[:tokens]
        context = len(ids) + 8
        sides: dict[str, tuple[object, ...]] = {
            "peer": ("peer", path, threads, context, peer),
            "ours": ("lacewing", path, threads, context, "lazy", "cpu"),
            "exact": ("lacewing", path, threads, context, "lazy", "reference"),
        }
        if other is not None:
            sides["other"] = ("peer", path, threads, context, other)
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
            if other is not None:
                results[name]["peer_to_other"] = compare(rows["peer"], rows["other"])
    return results


def from_exact(models: list[str], backends: list[str], tokens: int, threads: int) -> Iterator[str]:
    """A line for each model and backend: KL of exact arithmetic to it, of the text in one run and token by token."""
    import lacewing

    for name in models:
        path = path_of(name) if name in REAL else Path(name)
        ids = lacewing.load_tokenizer(path).encode_prompt(TEXT.read_text(encoding="utf-8"))[:tokens]
        with tempfile.TemporaryDirectory() as folder:
            exact = _rows(path, "reference", threads, ids, f"{folder}/exact.npy", at_once=True)
            for backend in backends:
                file = f"{folder}/{backend}.npy"
                found = [compare(exact, _rows(path, backend, threads, ids, file, at_once)) for at_once in (True, False)]
                means = [
                    f"{one['mean']:.6f} (largest {one['max']:.4f}, same favourite {one['same_favourite']:.1%})" for one in found
                ]
                yield f"{name}, {backend}, {len(ids)} tokens: in one run {means[0]}, token by token {means[1]}"


def _rows(path: Path, backend: str, threads: int, ids: list[int], file: str, at_once: bool) -> np.ndarray:
    """Logits (T, V), memory-mapped."""
    with Side("lacewing", path, threads, len(ids) + 8, "lazy", backend) as side:
        side.ask("logits", ids=ids, to=file, at_once=at_once)
    return np.load(file, mmap_mode="r")  # type: ignore[no-any-return]


def main() -> None:
    """Print the rows of the comparison."""
    from benchmarks import report

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.divergence", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--peer", type=Path, metavar="DIRECTORY", help="where llama.cpp's shared libraries are")
    parser.add_argument("--peer-other", type=Path, metavar="DIRECTORY", help="those of another CPU build of it")
    parser.add_argument("--backends", metavar="NAME,...", help="compare these with exact arithmetic, without llama.cpp")
    parser.add_argument("--models", default=",".join(REAL), metavar="FILE,...", help="with --backends")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.backends:
        for line in from_exact(options.models.split(","), options.backends.split(","), options.tokens, options.threads):
            print(line, flush=True)
        return
    if not options.peer:
        parser.error("name llama.cpp's libraries (--peer) or the backends to compare (--backends)")
    other = options.peer_other.resolve() if options.peer_other else None
    found = divergences(options.peer.resolve(), options.tokens, options.threads, other)
    report.show({}, [row for name, each in found.items() for row in report.divergence_rows(name, each)])


if __name__ == "__main__":
    main()
