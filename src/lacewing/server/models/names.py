"""By which names models are asked for. A request's name is looked up here and never opened as a path, unless that is allowed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lacewing import hub
from lacewing.errors import LacewingError, OptionError
from lacewing.formats.files import checkpoints_in, shown, stem_of
from lacewing.options import Progress, did_you_mean
from lacewing.paths import user_path
from lacewing.server.errors import UnknownModelError
from lacewing.server.options import ServerOptions

_LONGEST = 4096  # characters of a name in a request


@dataclass(frozen=True)
class Source:
    """A model that can be asked for: `source` is a path, or what the hub fetches. `created`: seconds since 1970."""

    name: str
    source: str
    created: int = field(default_factory=lambda: int(time.time()))

    def fetch(self, progress: Progress | None = None) -> Path:
        """The path to open; fetched now if it is not here. Raises OptionError, DownloadError, and whatever `progress` raises."""
        return hub.path_of(self.source, progress)

    def here(self) -> Path | None:
        """The path, if it need not be fetched."""
        try:
            return hub.resolve(self.source)
        except LacewingError:
            return None


class Catalogue:
    """The models of a server by name, those that were named first. Raises OptionError where there is none, or two of one name."""

    def __init__(self, options: ServerOptions):
        self._options = options
        self._named: dict[str, Source] = {}
        if not (options.models or options.models_dir or options.fetched or options.allow_paths):
            raise OptionError("there is nothing to serve: name a model, a folder with --models-dir, or --fetched")
        for text in options.models:
            source = _source_of(text)
            if self._named.setdefault(source.name, source).source != source.source:
                other = self._named[source.name].source
                raise OptionError(f"{other} and {text} would both be called {source.name!r}; serve one of them, or rename a file")
        self.default = next(iter(self._all()), None)
        if self.default is None and not options.allow_paths:
            where = options.models_dir or f"the cache {hub.cache_dir()}"
            raise OptionError(f"there is no model in {where}; name one, or fetch one with `lacewing pull`")

    def add(self, name: str) -> Source:
        """A model of the hub that has been fetched while the server runs."""
        return self._named.setdefault(name, _source_of(name))

    def sources(self) -> list[Source]:
        """All that there are now: files that came into the folder meanwhile are among them."""
        return list(self._all().values())

    def find(self, name: str | None) -> Source:
        """What a request asks for; without a name the first. Raises UnknownModelError."""
        known = self._all()
        if not name:
            name = self.default or next(iter(known), "")
        short = name.removesuffix(":latest")
        for each in (name, short, short.replace(":", "-")):  # as Ollama's clients write a name without a tag, or a size
            if each in known:
                return known[each]
        if self._options.allow_paths and name and (path := _existing(name)) is not None:
            return next((each for each in known.values() if _same(each.source, path)), Source(str(path), str(path), _changed(path)))
        hint = did_you_mean(name[:100], known) or f"there {'is' if len(known) == 1 else 'are'} {', '.join(list(known)[:20])}"
        raise UnknownModelError(f"there is no model {shown(name)!r} here; {hint}")

    def _all(self) -> dict[str, Source]:
        found = dict(self._named)
        for source in self._further():
            found.setdefault(source.name, source)
        return found

    def _further(self) -> Iterator[Source]:
        folder = self._options.models_dir
        if folder is not None:
            for path in checkpoints_in(folder):
                yield Source(stem_of(path), str(path), _changed(path))
        if self._options.fetched:
            for cached in hub.list_models():
                yield Source(cached.name, cached.name, _changed(cached.path))


def _source_of(text: str) -> Source:
    """Of a model that a person named at the start. Raises OptionError if there is nothing such."""
    if hub.is_reference(text) and not Path(text).exists():
        cached = hub.find(text)
        return Source(text, text) if cached is None else Source(text, text, _changed(cached.path))
    path = hub.resolve(text)
    return Source(stem_of(path), str(path), _changed(path))


def _existing(name: str) -> Path | None:
    """A path that a request names, if it is one, in the one spelling that it has."""
    if len(name) > _LONGEST:
        return None
    try:
        path = user_path(name)
        return path.resolve() if path.exists() else None
    except (LacewingError, OSError):
        return None


def _same(source: str, path: Path) -> bool:
    try:
        return Path(source).samefile(path)
    except (OSError, ValueError):
        return False


def _changed(path: Path) -> int:
    try:
        return int(path.stat().st_mtime)
    except OSError:
        return int(time.time())
