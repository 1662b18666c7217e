"""Weights on the device: how they get there."""
