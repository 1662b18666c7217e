"""A GPU through NVIDIA's driver: memory, streams, graphs, compiled kernels."""
