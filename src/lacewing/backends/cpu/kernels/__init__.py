"""Kernels of the CPU backend: ordinary Numba functions over SIMD values. Imported only when one has to be compiled."""
