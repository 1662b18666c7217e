"""The session: a conversation, its settings, how the model is spoken to. Services work on it from above."""
