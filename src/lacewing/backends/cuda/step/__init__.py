"""A compiled program at work: replay, the choice of the next token, parts of a split program."""
