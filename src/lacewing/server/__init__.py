"""HTTP: OpenAI's API and llama-server's small ones, for several clients at once."""
