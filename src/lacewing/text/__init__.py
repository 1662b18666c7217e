"""Text to token ids and back, chat templates, stop strings. Knows no model and no engine."""
