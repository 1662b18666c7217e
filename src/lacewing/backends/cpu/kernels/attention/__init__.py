"""Attention, and what happens to heads before it."""
