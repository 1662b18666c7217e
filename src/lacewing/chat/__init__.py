"""Talking in a terminal."""
