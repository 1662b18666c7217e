"""SIMD registers as Numba values, their instructions, and what threads share."""
