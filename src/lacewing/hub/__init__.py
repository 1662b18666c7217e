"""Fetches checkpoints into a per-user cache: named models, the Hugging Face hub, Python packages, files of any web server."""

from pathlib import Path

from lacewing.hub.cache import Cached, Partial, find, known_names, list_models, list_partial, remove, resolve, to_fetch
from lacewing.hub.names import NAMED, is_reference, is_url
from lacewing.options import Progress
from lacewing.paths import cache_dir

__all__ = ["NAMED", "Cached", "Partial", "cache_dir", "find", "is_reference", "known_names", "list_models", "list_partial",
           "path_of", "remove", "resolve", "to_fetch"]  # fmt: skip


def path_of(name: str, progress: Progress | None = None) -> Path:
    """The path to open for a model that a person named: a path, or a name, reference or URL, which is fetched if it is not here.

    What a URL leads to is fetched again when its server has another version, and used as it is when the server does not answer.
    Raises OptionError, DownloadError, and whatever `progress` raises.
    """
    if is_url(name) or to_fetch(name):
        from lacewing.hub.pull import pull

        return pull(name, progress).path
    return resolve(name)
