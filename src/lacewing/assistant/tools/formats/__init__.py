"""One file a format of tool calls, with its row."""
