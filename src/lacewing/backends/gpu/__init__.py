"""What the backends of GPUs share: how weights, pages, activations and inputs lie in a device's memory. No backend itself."""
