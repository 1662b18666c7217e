"""One token times quantised weights."""
