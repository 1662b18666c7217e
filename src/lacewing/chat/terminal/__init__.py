"""The ui of a session in a terminal, or in a pipe. What it shows comes from the session and its commands."""
