"""Ollama's endpoints: chat, generate, embed, lists of models, pull. Lines of JSON and errors as its clients expect them."""
