"""Fetches checkpoints into a per-user cache: named models, the Hugging Face hub, Python packages."""

from lacewing.hub.cache import Cached, cache_dir, find, list_models, remove, resolve
from lacewing.hub.names import NAMED, is_reference

__all__ = ["NAMED", "Cached", "cache_dir", "find", "is_reference", "list_models", "remove", "resolve"]
