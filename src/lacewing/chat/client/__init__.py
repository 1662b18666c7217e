"""A client of servers that speak OpenAI's API: Lacewing's own, llama-server, vLLM and others."""
