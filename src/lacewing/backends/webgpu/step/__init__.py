"""A compiled program at work: replay, the choice of the next token, what routers decide, parts of a split program."""
