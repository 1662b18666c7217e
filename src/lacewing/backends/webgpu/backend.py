"""Compile brings weights to the device and ops to dispatches; a step replays them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lacewing.backends.base import DeviceFacts, StepLimits, WeightView
from lacewing.backends.webgpu import lowering  # noqa: F401  # registers what turns ops into dispatches
from lacewing.backends.webgpu.compiler import LOWERINGS, Compiler
from lacewing.backends.webgpu.device import Device
from lacewing.backends.webgpu.layouts import LAYOUTS
from lacewing.backends.webgpu.matrices import Uploader
from lacewing.backends.webgpu.step import WebGPUStep
from lacewing.errors import UnsupportedModelError, WeightError
from lacewing.options import Progress
from lacewing.program.program import Program


class WebGPUBackend:
    """A GPU through wgpu: Vulkan, Metal or Direct3D 12."""

    name = "webgpu"

    def __init__(self, adapter: Any, checked: bool | None = None):
        self.device = Device(adapter, checked)

    def facts(self) -> DeviceFacts:
        info = self.device.adapter.info
        name = f"{info['device']} ({info['backend_type']}, {info['adapter_type']})"
        return DeviceFacts(self.name, name, threads=1, features=tuple(sorted(self.device.features)), memory_bytes=None)

    def compile(
        self, program: Program, weights: Mapping[str, WeightView], limits: StepLimits, progress: Progress | None = None
    ) -> WebGPUStep:
        _check(program, weights)
        total, done = sum(part.nbytes for name in program.weights for part in weights[name].parts), 0

        def tell(nbytes: int) -> None:
            nonlocal done
            done += nbytes
            if progress is not None:
                progress("bringing weights to the GPU", min(done, total), total)

        uploader = Uploader(self.device, tell)
        try:
            compiler = Compiler(self.device, program, weights, limits, uploader)
            compiler.lower()
            return WebGPUStep(compiler)
        finally:
            uploader.close()


def _check(program: Program, weights: Mapping[str, WeightView]) -> None:
    for name, shape in program.weights.items():
        if name not in weights:
            raise WeightError(f"weight {name} is missing")
        if tuple(weights[name].shape) != tuple(shape):
            raise WeightError(f"weight {name} has shape {tuple(weights[name].shape)}; the program needs {tuple(shape)}")
        if weights[name].quant.name not in LAYOUTS:
            raise UnsupportedModelError(
                f"weight {name} is {weights[name].quant.name}, which the WebGPU backend lacks; use --backend cpu"
            )
    for op in program.ops:
        if type(op) not in LOWERINGS:
            raise UnsupportedModelError(f"the WebGPU backend lacks the op {op.kind}; use --backend cpu")
