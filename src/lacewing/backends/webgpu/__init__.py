"""Any GPU through wgpu (Vulkan, Metal, Direct3D 12), with our own WGSL kernels."""

from __future__ import annotations

from lacewing.backends.webgpu.backend import WebGPUBackend


def open(threads: int | None = None) -> WebGPUBackend:
    """`threads` is ignored. Raises BackendError where there is no GPU that wgpu can use."""
    from lacewing.backends.webgpu.adapters import choose_adapter

    return WebGPUBackend(choose_adapter())
