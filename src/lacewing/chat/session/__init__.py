"""The session: a conversation, its settings, its model and formatter. Services work on it from above."""
