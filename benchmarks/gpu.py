"""A GPU backend beside llama.cpp's Vulkan or CUDA build on one GPU, and its kernels beside that GPU's copy bandwidth.

    python -m benchmarks.gpu FILE ... --peer DIRECTORY [--prompt 512] [--generate 64] [--rounds 5]
           [--backend webgpu|cuda] [--kernels] [--json]

DIRECTORY holds llama.cpp's libraries, for example those of `npm pack @node-llama-cpp/linux-x64-vulkan`, unpacked. Both engines
stay loaded in processes of their own and take turns. Ours generates greedily, the choice made on the device; llama.cpp runs as many
tokens, and its logits are read and compared on the host, as its own programs do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import lacewing
from benchmarks.sides import Side

PRODUCTS = ("gemv_dot", "gemv_gated", "gemv_float", "gemv_plain", "logits", "expert_gemv", "expert_sum")
PRODUCTS += ("gemv", "gemv_bytes", "expert_bytes", "expert_gated", "router")  # of CUDA
WARM_SECONDS = 1.0  # a GPU that idles clocks down, and takes its time to come back


def compare(path: str, options: argparse.Namespace) -> dict[str, Any]:
    """Medians of both sides, tokens/s."""
    context = options.prompt + options.generate + 64
    ours = Side("lacewing", path, options.threads, context, "lazy", options.backend)
    sides = {"ours": ours} | ({"peer": Side("peer", path, options.threads, context, options.peer)} if options.peer else {})
    speeds: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    work = {"prompt": options.prompt, "generate": options.generate}
    found: dict[str, Any] = {"file": path}
    try:
        for name, side in sides.items():
            found[f"{name} facts"] = side.ask("facts")
        for round_number in range(-1, options.rounds):
            for name, side in sides.items():
                order = "greedy" if name == "ours" else "speed"
                began = time.perf_counter()
                while time.perf_counter() - began < WARM_SECONDS:
                    speed = side.ask(order, **work)
                if round_number >= 0:
                    speeds[name].append(speed)
    finally:
        for side in sides.values():
            side.__exit__(None, None, None)
    for name, rounds in speeds.items():
        found[name] = {what: statistics.median(one[what] for one in rounds) for what in ("prompt", "generate")}
    return found


def kernels(path: str, backend: str) -> dict[str, float]:
    """GB/s of a copy kernel (bytes read and written), and of the products of one token over the weights that they read."""
    with lacewing.load(path, backend=backend, context=576) as model:
        step: Any = model.step
        found = {"copy": step.copy_rate() / 1e9}
        products = [one for one in step.profile(1, 512) if one.name in PRODUCTS]
        found["matvec"] = sum(one.nbytes for one in products) / sum(one.seconds for one in products) / 1e9
        found["share"] = found["matvec"] / found["copy"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--peer", help="directory with llama.cpp's libraries")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--backend", default="webgpu", choices=("webgpu", "cuda"))
    parser.add_argument("--kernels", action="store_true", help="also the bandwidth of the matrix-vector products")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for path in options.files:
        found = compare(path, options) | ({"kernels": kernels(path, options.backend)} if options.kernels else {})
        print(json.dumps(found) if options.json else shown(found), flush=True)


def shown(found: dict[str, Any]) -> str:
    """For people."""
    lines = [f"{found['file']} on {found['ours facts']['device']}"]
    for what in ("prompt", "generate"):
        line = f"  {what:9} {found['ours'][what]:9.1f} tokens/s"
        if "peer" in found:
            line += f", llama.cpp {found['peer'][what]:9.1f}: {found['ours'][what] / found['peer'][what]:.2f} x"
        lines.append(line)
    if "kernels" in found:
        k = found["kernels"]
        lines.append(f"  products of one token {k['matvec']:.0f} GB/s, copy {k['copy']:.0f} GB/s: {100 * k['share']:.0f} %")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
