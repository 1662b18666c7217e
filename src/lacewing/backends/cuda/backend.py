"""Compile brings weights to the device and ops to launches; a step replays them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lacewing.backends.base import Backend, DeviceFacts, DeviceMemory
from lacewing.backends.batch import StepLimits
from lacewing.backends.cuda import lowering  # noqa: F401  # registers what turns ops into launches
from lacewing.backends.cuda.buffers import buffer_bytes
from lacewing.backends.cuda.device.device import Device
from lacewing.backends.cuda.lowering.compiler import RULES, Compiler
from lacewing.backends.cuda.lowering.inputs import HALVED
from lacewing.backends.cuda.step.staged import StagedStep
from lacewing.backends.cuda.step.step import CudaStep
from lacewing.backends.cuda.weights.staging import capacity_for
from lacewing.backends.cuda.weights.upload import Uploader
from lacewing.backends.gpu.conversion import holds_some, weight_bytes
from lacewing.backends.gpu.pages import state_bytes
from lacewing.backends.weights import TensorSpec, WeightView
from lacewing.errors import WeightError
from lacewing.options import Progress
from lacewing.program.program import Program


class CudaBackend(Backend):
    """An NVIDIA GPU through its own driver. Several backends may share a device."""

    name = "cuda"
    copies_weights = True

    def __init__(self, device: Device, about: DeviceFacts | None = None):
        self.device, self._about = device, about

    def facts(self) -> DeviceFacts:
        features = (f"sm_{self.device.arch}",)
        return self._about or DeviceFacts(self.name, self.device.name, 1, features, None, "discrete GPU")

    def stored_bytes(self, weight: TensorSpec, transposed: bool = False) -> int:
        """What a weight takes on the device."""
        return weight_bytes(weight, transposed)

    def holds_some(self, weight: TensorSpec, transposed: bool) -> bool:
        """See `Backend.holds_some`."""
        return holds_some(weight, transposed)

    def room_bytes(self) -> int | None:
        """See `Backend.room_bytes`."""
        return self.device.free_bytes()

    def memory(self, program: Program, weights: Mapping[str, TensorSpec], limits: StepLimits) -> DeviceMemory:
        """See `Backend.memory`; rows of pages are whole loads, logits come in passes, and weights through staging memory."""
        common = super().memory(program, weights, limits)
        pages = tuple(len(group.members) * state_bytes(group.state) for group in program.groups)
        largest = max((self.stored_bytes(weights[name]) for name in program.weights.keys() - program.tables), default=0)
        staging = capacity_for(largest) if largest else 0
        buffers = buffer_bytes(program, limits, self.device.processors, self.device.number in HALVED)
        return replace(common, group_bytes=pages, buffer_bytes=buffers, staging_bytes=staging)

    def compile(
        self, program: Program, weights: Mapping[str, WeightView], limits: StepLimits, progress: Progress | None = None
    ) -> CudaStep:
        """See backends.base.Backend. What a compilation has taken is given back when it fails or is cancelled."""
        check(program, weights)
        total, done = sum(part.nbytes for name in program.weights.keys() - program.tables for part in weights[name].parts), 0

        def tell(nbytes: int) -> None:
            nonlocal done
            done += nbytes
            if progress is not None:
                progress("bringing weights to the GPU", min(done, total), total)

        with self.device.lock:
            before = self.device.held
            try:
                uploader = Uploader(self.device, tell)
                try:
                    compiler = Compiler(self.device, program, weights, limits, uploader)
                    compiler.report = progress or compiler.report
                    compiler.lower()
                    step = (StagedStep if compiler.stages else CudaStep)(compiler)
                    step.notices = uploader.notices
                    return step
                finally:
                    uploader.close()
                    self.device.unprepare()
            except BaseException:
                self.device.settle()
                self.device.free_since(before)
                raise


def check(program: Program, weights: Mapping[str, TensorSpec | WeightView]) -> None:
    """Raises WeightError for weights that are not the program's, UnsupportedModelError for what this backend lacks."""
    for name, shape in program.weights.items():
        if name not in weights:
            raise WeightError(f"weight {name} is missing")
        if tuple(weights[name].shape) != tuple(shape):
            raise WeightError(f"weight {name} has shape {tuple(weights[name].shape)}; the program needs {tuple(shape)}")
    for op in program.ops:
        RULES[op]  # raises for an op without a rule
