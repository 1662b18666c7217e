"""A checkpoint's metadata to a `ModelConfig`: one reader a format, on one typed, bounded reader of keys."""
