"""One file an architecture, found by its name: the folder listing is the registry."""
