"""Compile brings weights to the device and ops to dispatches; a step replays them."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import replace

from lacewing.backends.base import Backend, DeviceFacts, DeviceMemory
from lacewing.backends.batch import StepLimits
from lacewing.backends.gpu.conversion import holds_some, weight_bytes
from lacewing.backends.gpu.pages import state_bytes
from lacewing.backends.webgpu import lowering  # noqa: F401  # registers what turns ops into dispatches
from lacewing.backends.webgpu.buffers import activation_bytes, buffer_bytes
from lacewing.backends.webgpu.device.adapters import Adapter, free_memory
from lacewing.backends.webgpu.device.device import Device
from lacewing.backends.webgpu.lowering.compiler import RULES, Compiler
from lacewing.backends.webgpu.step.staged import StagedStep
from lacewing.backends.webgpu.step.step import WebGPUStep
from lacewing.backends.webgpu.weights.matrices import Uploader
from lacewing.backends.webgpu.weights.staging import TURNS, capacity_for
from lacewing.backends.weights import TensorSpec, WeightView
from lacewing.errors import BackendError, WeightError
from lacewing.options import Progress
from lacewing.program.program import Program

UNIT_RUN = 2048  # tokens of a run that fill matrix units: on an H200 the prompts of a mixture are 1.55 times as fast as with 512


class WebGPUBackend(Backend):
    """A GPU through wgpu: Vulkan, Metal or Direct3D 12. Several may share a device."""

    name = "webgpu"
    copies_weights = True

    def __init__(self, device: Device, about: DeviceFacts | None = None):
        self.device, self._about = device, about

    def facts(self) -> DeviceFacts:
        """The features are those that are used."""
        info = self.device.adapter.info
        about = self._about or DeviceFacts(self.name, f"{info['device']} ({info['backend_type']})", 1, (), None)
        variant = self.device.variant
        known = (
            ("subgroups", variant.subgroups),
            ("dot", variant.dot),
            ("half", variant.half),
            ("units", variant.units is not None),
        )
        used = [name for name, on in known if on]
        return replace(about, features=(*sorted(self.device.features), *used))

    def stored_bytes(self, weight: TensorSpec, transposed: bool = False) -> int:
        """What a weight takes on the device."""
        return weight_bytes(weight, transposed)

    def holds_some(self, weight: TensorSpec, transposed: bool) -> bool:
        """See `Backend.holds_some`."""
        return holds_some(weight, transposed)

    def run_tokens(self, program: Program) -> int:
        """See `Backend.run_tokens`; one binding must hold the activations."""
        if self.device.variant.units is None:
            return 0
        fits = activation_bytes(program, StepLimits(1, UNIT_RUN), True) <= self.device.largest_buffer
        return UNIT_RUN if fits else 0

    def room_bytes(self) -> int | None:
        """See `Backend.room_bytes`."""
        return free_memory(self.device)

    def memory(self, program: Program, weights: Mapping[str, TensorSpec], limits: StepLimits) -> DeviceMemory:
        """See `Backend.memory`; rows of pages are whole loads, logits come in passes, and weights through staging memory."""
        common = super().memory(program, weights, limits)
        pages = tuple(len(group.members) * state_bytes(group.state) for group in program.groups)
        largest = max((self.stored_bytes(weights[name]) for name in program.weights.keys() - program.tables), default=0)
        staging = (TURNS + 1) * capacity_for(largest) if largest else 0
        return replace(
            common,
            group_bytes=pages,
            buffer_bytes=buffer_bytes(program, limits, self.device.variant.units),
            staging_bytes=staging,
        )

    def compile(
        self, program: Program, weights: Mapping[str, WeightView], limits: StepLimits, progress: Progress | None = None
    ) -> WebGPUStep:
        """See backends.base.Backend. What a compilation has taken is given back when it fails or is cancelled."""
        check(program, weights)
        total, done = sum(part.nbytes for name in program.weights.keys() - program.tables for part in weights[name].parts), 0

        def tell(nbytes: int) -> None:
            nonlocal done
            done += nbytes
            if progress is not None:
                progress("bringing weights to the GPU", min(done, total), total)

        with self.device.lock:
            before = self.device.buffers
            try:
                uploader = Uploader(self.device, tell)
                try:
                    compiler = Compiler(self.device, program, weights, limits, uploader)
                    compiler.report = progress or compiler.report
                    compiler.lower()
                    step = (StagedStep if compiler.stages else WebGPUStep)(compiler)
                    step.notices = uploader.notices
                    return step
                finally:
                    uploader.close()
                    self.device.unprepare()
            except BaseException:
                self.device.free_since(before)
                self.device.settle()
                raise


_devices: dict[tuple[object, ...], Device] = {}
_opening = threading.Lock()


def shared(adapter: Adapter) -> Device:
    """The device of an adapter, opened once for all models. One that was lost is opened anew. Raises BackendError."""
    if adapter.problem:
        raise BackendError(f"the GPU {adapter.name} cannot be used: {adapter.problem}; use `backend='cpu'`")
    choices = (os.environ.get("LACEWING_WEBGPU"), os.environ.get("LACEWING_WEBGPU_CHECKS"))  # tests change them
    key = (adapter.index, adapter.name, adapter.interface, *choices)
    with _opening:
        if key not in _devices or _devices[key].lost:
            _devices[key] = Device(adapter.gpu)
        return _devices[key]


def check(program: Program, weights: Mapping[str, TensorSpec | WeightView]) -> None:
    """Raises WeightError for weights that are not the program's, UnsupportedModelError for what this backend lacks."""
    for name, shape in program.weights.items():
        if name not in weights:
            raise WeightError(f"weight {name} is missing")
        if tuple(weights[name].shape) != tuple(shape):
            raise WeightError(f"weight {name} has shape {tuple(weights[name].shape)}; the program needs {tuple(shape)}")
    for op in program.ops:
        RULES[op]  # raises for an op without a rule
