"""Token ids in, token ids out. Knows no text, no template and no checkpoint."""
