"""The WebGPU backend beside llama.cpp's Vulkan or CUDA build on one GPU, and its kernels beside that GPU's copy bandwidth.

    python -m benchmarks.gpu FILE ... --peer DIRECTORY [--prompt 512] [--generate 64] [--rounds 5] [--kernels] [--json]

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

import numpy as np

import lacewing
from benchmarks.sides import Side

WARM_SECONDS = 1.0  # a GPU that idles clocks down, and takes its time to come back
COPY_BYTES = 2**31 - 256  # what one binding shows

COPY = """
@group(0) @binding(0) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> target_: array<vec4<u32>>;
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let stride = groups.x * 256u;
  for (var i = id.x; i < arrayLength(&source); i += stride) { target_[i] = source[i]; }
}
"""


def compare(path: str, options: argparse.Namespace) -> dict[str, Any]:
    """Medians of both sides, tokens/s."""
    context = options.prompt + options.generate + 64
    ours = Side("lacewing", path, options.threads, context, "lazy", "webgpu")
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


def kernels(path: str) -> dict[str, float]:
    """GB/s of a copy kernel (bytes read and written), and of the products of one token over the weights that they read."""
    from lacewing.backends.webgpu.plan import Run

    with lacewing.load(path, backend="webgpu", context=576) as model:
        step: Any = model.step
        device = step.device
        timer = Timer(device)
        found = {"copy": timer.copy_bandwidth()}
        chosen = [d for d in step.dispatches if d.label in ("matvec_dot", "matvec_gated", "logits")]
        run = Run(1, 1, True, 512)
        plan = [(d, grid) for d in chosen if (grid := d.grid(run)) is not None]
        seconds = timer.seconds([(d.owner[0].owner[0], d.owner[1], grid) for d, grid in plan])
        weights = {id(buffer) for buffer in step.weight_buffers}
        nbytes = sum(part.size for d, _ in plan for part in d.bindings if id(part.buffer) in weights)
        found["matvec"] = nbytes / seconds / 1e9
        found["share"] = found["matvec"] / found["copy"]
        timer.close()
    return found


class Timer:
    """Times dispatches by the device's own clock."""

    def __init__(self, device: Any):
        import wgpu

        self._device = device
        self._queries = device.device.create_query_set(type="timestamp", count=2)
        usage = wgpu.BufferUsage.QUERY_RESOLVE | wgpu.BufferUsage.COPY_SRC
        self._times = device.device.create_buffer(size=256, usage=usage)

    def seconds(self, plan: list[tuple[Any, Any, tuple[int, int, int]]]) -> float:
        """The best of several passes over (pipeline, bind group, workgroups), after a second of warming up."""
        best, began = float("inf"), time.perf_counter()
        while time.perf_counter() - began < WARM_SECONDS:
            encoder = self._device.device.create_command_encoder()
            writes = {"query_set": self._queries, "beginning_of_pass_write_index": 0, "end_of_pass_write_index": 1}
            compute = encoder.begin_compute_pass(timestamp_writes=writes)
            for pipeline, group, grid in plan:
                compute.set_pipeline(pipeline)
                compute.set_bind_group(0, group)
                compute.dispatch_workgroups(*grid)
            compute.end()
            encoder.resolve_query_set(self._queries, 0, 2, self._times, 0)
            self._device.device.queue.submit([encoder.finish()])
            start, end = np.frombuffer(self._device.device.queue.read_buffer(self._times, 0, 16), np.uint64).tolist()
            best = min(best, (end - start) * 1e-9)
        return best

    def copy_bandwidth(self) -> float:
        """GB/s, read and written, of a kernel that copies."""
        from lacewing.backends.webgpu.device import Slice

        size = min(COPY_BYTES, self._device.largest_buffer) // 256 * 256
        source, target = (self._device.buffer(size, "a copy") for _ in range(2))
        pipeline = self._device.pipeline(COPY, "copy")
        group = self._device.bind(pipeline, [Slice(source, 0, size), Slice(target, 0, size)])
        seconds = self.seconds([(pipeline.owner[0], group, (1056, 1, 1))])
        for buffer in (source, target):
            self._device.free(buffer)
        return 2 * size / seconds / 1e9

    def close(self) -> None:
        self._times.destroy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--peer", help="directory with llama.cpp's libraries")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--kernels", action="store_true", help="also the bandwidth of the matrix-vector products")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for path in options.files:
        found = compare(path, options) | ({"kernels": kernels(path)} if options.kernels else {})
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
