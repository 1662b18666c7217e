"""A checkpoint of a web server: its headers, by range requests, or all of it.

Headers are some megabytes of a model of any size; they are put into files that end behind them, which
`open_checkpoint(whole=False)` describes.
"""

from __future__ import annotations

import posixpath
import re
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from lacewing.errors import DownloadError
from lacewing.formats import open_checkpoint
from lacewing.formats.gguf import split_names
from lacewing.formats.gguf_header import HEADER_LIMIT, HeaderReader
from lacewing.formats.json_files import SIZE_LIMIT
from lacewing.formats.safetensors import INDEX, read_index
from lacewing.hub.download import Wanted, check_room, digest, download, size_of
from lacewing.hub.http import blocks, count_of, open_url, status_of
from lacewing.hub.huggingface import SIDE_FILES, Hub, choose
from lacewing.hub.names import FILE_NAME, is_url, parse
from lacewing.options import Progress

_BLOCK = 2**18  # bytes of the first request: most headers of safetensors fit
_THREADS = 8
_SHORT = 64  # answers of one server that may bring less than was asked for
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})")

Address = Callable[[str], tuple[str, str | None]]  # file name to URL and token


def fetch_headers(name: str, folder: Path, hub: Hub | None = None) -> Path:
    """The path to open, below `folder`, for a URL (of a GGUF or safetensors file, or a directory) or `hf:owner/repo[:file]`.

    Raises DownloadError, ModelFormatError.
    """
    if is_url(name):
        names, address = _files_of_url(name, folder)
        path = _fetch_all(names, folder, address)
        return folder / names[0] if name.partition("?")[0].endswith(".safetensors") else path
    reference, hub = parse(name), hub or Hub()
    files = [file.name for file in choose(hub.files(reference.target), reference.target, reference.detail)]
    return _fetch_all(files, folder, lambda file: hub.address(reference.target, file))


def fetch_whole(url: str, folder: Path, progress: Progress | None) -> dict[str, str]:
    """Put all files of the checkpoint at a URL into `folder`; their names and SHA-256.

    What is no model is refused before it is fetched. Raises DownloadError, ModelFormatError, UnsupportedModelError.
    """
    with tempfile.TemporaryDirectory(prefix="lacewing-") as headers:
        needed = open_checkpoint(fetch_headers(url, Path(headers)), whole=False).nbytes
    names, address = _files_of_url(url, folder)
    here = sum(size_of(folder / name) + size_of(folder / f"{name}.part") for name in names)
    check_room(folder, needed - here, url)
    sums = {name: digest(folder / name) for name in (*SIDE_FILES, INDEX) if (folder / name).exists()}
    for name in names:
        target = folder / name
        wanted = Wanted(address(name)[0])
        sums[name] = digest(target) if target.exists() else download(wanted, target, f"fetching {name}", progress)
    return sums


def _files_of_url(url: str, folder: Path) -> tuple[list[str], Address]:
    """The files of weights that a URL stands for, and where they are; the small files beside them are put into `folder`."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise DownloadError(f"{url} is not an address: {error}") from None
    name, query = unquote(posixpath.basename(parts.path)), f"?{parts.query}" if parts.query else ""
    if name.endswith((".gguf", ".safetensors")):
        if not FILE_NAME.fullmatch(name):
            raise DownloadError(f"{url}: {name!r} cannot be the name of a file here")
        names = split_names(name) if name.endswith(".gguf") else [name]
        if name.endswith(".safetensors"):
            _fetch_side_files(folder, url, query)
        return names, lambda file: (urljoin(url, file) + query, None)
    base = url.partition("?")[0].rstrip("/") + "/"
    _fetch_side_files(folder, base, query)
    if not (folder / "config.json").exists():
        raise DownloadError(f"{base} has no config.json; give the address of a .gguf file, or of a Hugging Face directory")
    names = sorted(set(read_index(folder / INDEX).values())) if (folder / INDEX).exists() else ["model.safetensors"]
    return names, lambda file: (urljoin(base, file) + query, None)


def _fetch_side_files(folder: Path, base: str, query: str) -> None:
    """The small files of a directory, those that are there."""
    for name in (*SIDE_FILES, INDEX):
        try:
            _Remote(urljoin(base, name) + query, None).save_whole(folder / name)
        except DownloadError as error:
            if status_of(error) != 404:
                raise


def _fetch_all(names: list[str], folder: Path, address: Address) -> Path:
    """Headers of the weights, the others whole, several at a time. The path to open: the first GGUF file, or the folder."""

    def fetch(name: str) -> Path:
        path, remote = folder / name.rpartition("/")[2], _Remote(*address(name))
        if name.endswith(".gguf"):
            remote.save_gguf(path)
        elif name.endswith(".safetensors"):
            remote.save_safetensors(path)
        else:
            remote.save_whole(path)
        return path

    with ThreadPoolExecutor(_THREADS) as pool:
        paths = list(pool.map(fetch, names))
    return paths[0] if paths[0].suffix == ".gguf" else folder


@dataclass
class _Remote:
    """One file there, read from its beginning on as far as somebody asks."""

    url: str
    token: str | None
    size: int = -1  # of the whole file, once it is known
    data: bytes = b""
    short: int = 0  # answers that brought less than was asked for

    def upto(self, end: int) -> bytes:
        """The first `end` bytes, or all if the file is shorter."""
        while len(self.data) < end and len(self.data) != self.size:
            start = len(self.data)
            stop = max(end, 2 * start, _BLOCK)
            with open_url(self.url, {"Range": f"bytes={start}-{stop - 1}"}, token=self.token) as response:
                found = _RANGE.fullmatch(str(response.headers.get("Content-Range", "")))
                length = count_of(response.headers.get("Content-Length"))
                if response.status == 206 and found and int(found[1]) == start:
                    size, known = int(found[2]), 0
                elif response.status == 200 and length is not None:  # a server without ranges: this begins at the beginning
                    size, known = length, start
                else:
                    raise DownloadError(f"{self.url}: the server supports neither ranges nor sizes; fetch the whole file")
                if self.size not in (-1, size):
                    raise DownloadError(f"{self.url} had {self.size} bytes and now has {size}; it changed, try again")
                self.size = size
                body, wanted = bytearray(), min(stop, self.size) - start + known
                for block in blocks(response, self.url):
                    body += block
                    if len(body) >= wanted:
                        break
                part = bytes(body[known:wanted])
            self.short += len(part) < wanted - known
            if not part or self.short > _SHORT:
                raise DownloadError(f"the transfer of {self.url} ended after {start + len(part)} of {self.size} bytes")
            self.data += part
        return self.data[:end]

    def save_whole(self, path: Path) -> None:
        self.upto(1)
        if self.size > SIZE_LIMIT:
            raise DownloadError(f"{self.url} has {self.size} bytes; of such files at most {SIZE_LIMIT} are read")
        path.write_bytes(self.upto(self.size))

    def save_safetensors(self, path: Path) -> None:
        length = 8 + int.from_bytes(self.upto(8), "little")
        path.write_bytes(self.upto(min(length, HEADER_LIMIT)))  # the format's reader refuses what is not right

    def save_gguf(self, path: Path) -> None:
        self.upto(24)
        reader = HeaderReader(_Cursor(self), self.size, path)
        end = reader.read().end
        path.write_bytes(self.upto(end))


class _Cursor:
    """What the header's reader needs of a file: to read on."""

    def __init__(self, remote: _Remote):
        self._remote, self._at = remote, 0

    def read(self, size: int, /) -> bytes:
        found = self._remote.upto(self._at + size)[self._at :]
        self._at += len(found)
        return found
