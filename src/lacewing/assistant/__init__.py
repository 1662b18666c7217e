"""Conversations to answers: prompts from messages, text and more from tokens. Shared by chat, server and API."""
