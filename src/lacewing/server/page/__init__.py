"""The web page for a browser: its files, and how they are served."""
