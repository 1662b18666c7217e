"""Several tokens times weights: tiles of bytes, rows of floats."""
