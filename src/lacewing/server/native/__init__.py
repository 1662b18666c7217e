"""Endpoints that OpenAI has not: health, and what tokenizer and template make of a text, as llama-server has them."""
