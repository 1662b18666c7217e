"""A prototype: a model that this engine has compiled for WebGPU, replayed by a thin script in a browser."""
