"""A mixture of experts that a GPU and the CPU share, beside each of them alone. Tokens are random: answers of random weights
repeat themselves, and so choose the same experts again.

    python -m benchmarks.shared FILE [cpu all 10GiB ...] [--skew 0.4] [--rounds 5] [--prompt 512] [--generate 64]

cpu: the CPU alone; all: the whole model on the GPU; else how much memory of the GPU may be used. Random routers choose all
experts alike, the worst case. `--skew` gives the routers of a copy (FILE.skewed) rows of different lengths, e to the power of this
times a normal number, so that some experts are chosen more often, as in a trained model.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from pathlib import Path

import numpy as np
from gguf import GGUFReader

import lacewing
from lacewing.engine.engine import Engine


def measure(engine: Engine, prompt: int, generate: int, rounds: int) -> list[tuple[float, float, float | None]]:
    """Of each round: tokens/s of a prompt and of single tokens after it, and the hit rate of these tokens' experts."""
    found = []
    for number in range(rounds):
        ids = np.random.Generator(np.random.PCG64(number)).integers(0, engine.vocab_size, prompt + generate).tolist()
        engine.forget()
        engine.rebalance()
        began = time.perf_counter()
        engine.extend(ids[:prompt])
        middle = time.perf_counter()
        engine.rebalance()  # as behind the first token of an answer
        after = time.perf_counter()
        for token in ids[prompt:]:
            engine.extend([token])
        cached = engine.step.cache_statistics
        speeds = prompt / (middle - began), generate / (time.perf_counter() - after)
        found.append((*speeds, None if cached is None else cached.hit_rate))
    return found


def skewed(path: Path, spread: float) -> Path:
    """A copy whose routers prefer some experts."""
    copy, random = path.with_name(path.name + ".skewed"), np.random.default_rng(3)
    shutil.copyfile(path, copy)
    for tensor in GGUFReader(copy, "r+").tensors:
        if tensor.name.endswith("ffn_gate_inp.weight"):
            rows = tensor.data
            lengths = np.linalg.norm(rows, axis=1, keepdims=True)
            factors = np.exp(spread * random.standard_normal((len(rows), 1)))
            rows[:] = rows / lengths * np.median(lengths) * factors.astype(np.float32)
    return copy


def shown(where: str, found: list[tuple[float, float, float | None]]) -> str:
    """For people: medians, and how the hit rate rose."""
    prompts, tokens, rates = zip(*found, strict=True)
    hits = "" if None in rates else f", hit rate {rates[0]:.0%} at first, {rates[-1]:.0%} in the end"
    return f"{where}: prompt {statistics.median(prompts):.1f}, generate {statistics.median(tokens):.1f} tokens/s{hits}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("where", nargs="*", default=["cpu", "all"])
    parser.add_argument("--skew", type=float, default=0.0)
    for name, default in (("rounds", 5), ("prompt", 512), ("generate", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    path = skewed(options.file, options.skew) if options.skew else options.file
    for where in options.where:
        budget = None if where in ("cpu", "all") else where
        backend, context = "cpu" if where == "cpu" else "webgpu", options.prompt + options.generate
        with lacewing.load(path, backend=backend, gpu_memory=budget, context=context) as model:
            print(shown(where, measure(model.engine, options.prompt, options.generate, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
