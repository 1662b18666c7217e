"""Values out of blocks: unpackers to tiles, dequantisers to rows, activations to bytes."""
