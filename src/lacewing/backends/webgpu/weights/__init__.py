"""Weights on the device: how each quant lies there, how it gets there, what it takes."""
