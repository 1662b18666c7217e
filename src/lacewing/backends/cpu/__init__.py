"""The CPU backend: SIMD kernels in Python, compiled once per machine, run by native threads without Python between ops."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import psutil

from lacewing.backends.base import Backend, Candidate, DeviceFacts, DeviceMemory, estimate
from lacewing.backends.batch import StepLimits
from lacewing.backends.cpu import native
from lacewing.backends.cpu.affinity import default_threads, memory_nodes
from lacewing.backends.cpu.arguments import MAX_CHUNK, SCRATCH_BYTES
from lacewing.backends.cpu.isa import host_isa
from lacewing.backends.cpu.lowering import lower
from lacewing.backends.cpu.lowering.heads import score_row_bytes, score_rows
from lacewing.backends.cpu.lowering.look_ahead import guess_bytes
from lacewing.backends.cpu.quants import copied_bytes, tile_orders
from lacewing.backends.cpu.rows import row_tables
from lacewing.backends.cpu.step import CpuStep
from lacewing.backends.weights import TensorSpec, TileOrder, WeightView
from lacewing.errors import OptionError, OutOfMemoryError
from lacewing.options import Progress
from lacewing.program.ops import SelectKeys
from lacewing.program.program import Program

EXECUTOR = ("executor.begin", "executor.lead", "executor.work")


def cpu_name() -> str:
    """As the maker calls it, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


class CpuBackend(Backend):
    """Threads of this machine's CPU."""

    name = "cpu"
    copies_weights = False
    streams_experts = hasattr(os, "preadv")  # positioned reads, which Windows has not

    def __init__(self, threads: int | None):
        self.threads = threads or default_threads()

    def facts(self) -> DeviceFacts:
        isa = host_isa()
        return DeviceFacts("cpu", cpu_name(), self.threads, (isa.name,), psutil.virtual_memory().total)

    def memory_nodes(self) -> tuple[int, ...]:
        return memory_nodes(self.threads)

    def tile_orders(self, program: Program, weights: Mapping[str, TensorSpec]) -> dict[str, TileOrder]:
        return tile_orders(program, weights)

    def row_tables(self, program: Program, weights: Mapping[str, TensorSpec]) -> frozenset[str]:
        return row_tables(program, weights)

    def memory(self, program: Program, weights: Mapping[str, TensorSpec], limits: StepLimits) -> DeviceMemory:
        found = estimate(program, weights, limits)
        buffers, copies = found.buffer_bytes + SCRATCH_BYTES * self.threads, copied_bytes(program, weights)
        if limits.look_ahead:
            buffers += guess_bytes(program, limits)
        if any(isinstance(op, SelectKeys) for op in program.ops):
            buffers += score_rows(self.threads) * score_row_bytes(limits.context)
        return replace(found, buffer_bytes=buffers, copied_bytes=copies)

    def compile(
        self, program: Program, weights: Mapping[str, WeightView], limits: StepLimits, progress: Progress | None = None
    ) -> CpuStep:
        if not 1 <= limits.chunk <= MAX_CHUNK:
            raise OptionError(f"the CPU backend takes 1 to {MAX_CHUNK} tokens a step, not {limits.chunk}")
        try:
            lowering = lower(program, weights, limits, self.threads)
            names = {op.kernel for op in lowering.ops} | lowering.extra
            return CpuStep(lowering, native.load([*EXECUTOR, *sorted(names)], progress), self.threads, self.memory_nodes())
        except MemoryError as error:
            room = f"the KV cache and buffers of {limits.rows} x {limits.context} tokens"
            raise OutOfMemoryError(f"there is no memory for {room}: {error}; ask for a smaller context") from error


def open(threads: int | None = None) -> CpuBackend:
    """The backend; `threads` None: as many as this process has fast cores."""
    return CpuBackend(threads)


def candidates(needed_bytes: int | None = None) -> list[Candidate]:
    """This machine's CPU."""
    return [Candidate(CpuBackend(None).facts(), True, "if no GPU is suitable")]
