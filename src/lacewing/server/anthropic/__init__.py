"""Anthropic's endpoints: messages, streamed or not, and how many tokens a prompt has."""
