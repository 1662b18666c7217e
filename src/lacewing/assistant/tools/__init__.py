"""Tool calls: definitions and their limits, the formats of the model families, calls told apart from text, results sent back."""
