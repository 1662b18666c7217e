"""Models of a running server: how they are, loading, changing, leaving, with events; as llama-server's router has it."""
