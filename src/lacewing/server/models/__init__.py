"""The models of a server: by which names they are asked for, which of them are in memory, and who has to leave it."""
