"""Fetches checkpoints into a per-user cache: named models, the Hugging Face hub, Python packages."""

from lacewing.hub.cache import Cached, find, list_models, remove, resolve, to_fetch
from lacewing.hub.names import NAMED, is_reference
from lacewing.options import cache_dir

__all__ = ["NAMED", "Cached", "cache_dir", "find", "is_reference", "list_models", "remove", "resolve", "to_fetch"]
