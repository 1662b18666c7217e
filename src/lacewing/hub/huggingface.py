"""Models of the Hugging Face hub: which files of a repository make one checkpoint, and fetching them."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lacewing.errors import DownloadError
from lacewing.formats.gguf import split_head, split_names
from lacewing.formats.safetensors import INDEX
from lacewing.hub.download import Wanted, check_room, digest, download, size_of
from lacewing.hub.http import Unreachable, fetch_small, status_of
from lacewing.options import Progress

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,200}(/[A-Za-z0-9_][A-Za-z0-9._+-]{0,200}){0,4}")
SIDE_FILES = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "chat_template.jinja", "chat_template.json", "vocab.json", "merges.txt", "tokenizer.model"),
    "tiktoken.model",
)
_LISTED = 50  # names in a message
_LISTING = 16 << 20  # bytes that the list of a repository's files may take


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository. Large ones have a SHA-256 there, small ones only the SHA-1 of their Git blob."""

    name: str
    size: int | None = None
    sha256: str | None = None
    blob: str | None = None


class Hub:
    """The hub itself, or the mirror that HF_ENDPOINT names; with the token of `hf auth login` or HF_TOKEN."""

    def __init__(self, endpoint: str | None = None):
        self._endpoint = endpoint

    def files(self, repo: str) -> list[RemoteFile]:
        """Raises DownloadError when there is no network, no such repository, or no permission."""
        listing = self._ask(f"api/models/{repo}?blobs=true", repo)
        files = listing.get("siblings") if isinstance(listing, dict) else None
        if not isinstance(files, list):
            raise DownloadError(f"the hub's answer about {repo} lists no files")
        return [_remote_file(file) for file in files if isinstance(file, dict) and isinstance(file.get("rfilename"), str)]

    def address(self, repo: str, name: str) -> tuple[str, str | None]:
        """Where one file is, and the token to show there."""
        endpoint, token = self._place()
        return f"{endpoint}/{repo}/resolve/main/{quote(name)}", token

    def fetch(self, repo: str, file: RemoteFile, target: Path, progress: Progress | None) -> str:
        """Put one file at `target`, continuing what an earlier process began; its SHA-256. Raises DownloadError."""
        url, token = self.address(repo, file.name)
        with _explained(repo):
            return download(Wanted(url, file.size, file.sha256, file.blob, token), target, f"fetching {file.name}", progress)

    def _ask(self, path: str, repo: str) -> Any:
        endpoint, token = self._place()
        with _explained(repo):
            return fetch_small(f"{endpoint}/{path}", _LISTING, token=token).json()

    def _place(self) -> tuple[str, str | None]:
        """Address and token."""
        from huggingface_hub import constants, get_token

        if constants.HF_HUB_OFFLINE and self._endpoint is None:
            raise DownloadError("HF_HUB_OFFLINE is set, so the hub is not asked")
        return self._endpoint or constants.ENDPOINT, get_token()


def _remote_file(file: dict[str, Any]) -> RemoteFile:
    lfs = file.get("lfs")
    size, sha256, blob = file.get("size"), lfs.get("sha256") if isinstance(lfs, dict) else None, file.get("blobId")
    return RemoteFile(
        file["rfilename"],
        size if type(size) is int and 0 <= size < 2**60 else None,
        sha256 if isinstance(sha256, str) and re.fullmatch(r"[0-9a-f]{64}", sha256) else None,
        blob if isinstance(blob, str) and re.fullmatch(r"[0-9a-f]{40}", blob) else None,
    )


@contextlib.contextmanager
def _explained(repo: str) -> Iterator[None]:
    """What the hub's refusals mean."""
    try:
        yield
    except Unreachable as error:
        raise Unreachable("cannot reach the hub; check your connection") from error
    except DownloadError as error:
        if status_of(error) in (401, 404):
            problem = f"the hub has no repository {repo} with this file, or it is private: `hf auth login` or HF_TOKEN gives access"
            raise DownloadError(problem) from error
        if status_of(error) == 403:
            raise DownloadError(f"the hub does not let you fetch {repo}; accept its terms on the repository's page") from error
        raise


def choose(files: Sequence[RemoteFile], repo: str, wanted: str | None) -> list[RemoteFile]:
    """The files that make one checkpoint: a GGUF file with all its splits, or safetensors with what goes with them.

    `wanted` is a file name or a quant such as Q4_K_M. Raises DownloadError with what there is to choose from.
    """
    by_name = {file.name: file for file in files if _NAME.fullmatch(file.name) and ".." not in file.name}
    models = [name for name in by_name if name.endswith(".gguf") and "mmproj" not in name.lower()]
    heads = sorted(name for name in models if split_head(name) == name)
    if wanted is None and not heads:
        return _safetensors(by_name, repo)
    if wanted is not None:
        low = wanted.lower()
        matching = [name for name in heads if name == wanted] or [
            name for name in heads if re.search(rf"[-._/]{re.escape(low)}(?=[-./])", name.lower())
        ]
    else:
        matching = heads if len(heads) == 1 else [name for name in heads if "q4_k_m" in name.lower()]
    if len(matching) != 1:
        raise DownloadError(
            f"{repo} has no file for {wanted or 'a default'!r}; write hf:{repo}:FILE with one of "
            f"{', '.join(heads[:_LISTED]) or 'none'}"
        )
    return _with_splits(by_name, matching[0])


def _with_splits(by_name: dict[str, RemoteFile], head: str) -> list[RemoteFile]:
    names = split_names(head)
    missing = [name for name in names if name not in by_name]
    if missing:
        raise DownloadError(f"the repository has no {missing[0]}, a part of {head}")
    return [by_name[name] for name in names]


def _safetensors(by_name: dict[str, RemoteFile], repo: str) -> list[RemoteFile]:
    weights = sorted(name for name in by_name if "/" not in name and name.endswith(".safetensors"))
    index = [INDEX] if INDEX in by_name else []
    if index:
        weights = [name for name in weights if re.fullmatch(r"model-\d+-of-\d+\.safetensors", name)] or weights
    elif "model.safetensors" in weights:
        weights = ["model.safetensors"]
    if not weights or "config.json" not in by_name:
        raise DownloadError(f"{repo} has no checkpoint that can be read: no .gguf file, and no safetensors with a config.json")
    if all(name.startswith("consolidated") for name in weights):  # said now, and not after hundreds of gigabytes
        raise DownloadError(
            f"{repo} has its weights in Mistral's own form only (consolidated*.safetensors), which is not read; name a repository "
            "with GGUF files"
        )
    return [by_name[name] for name in [*weights, *index, *(name for name in SIDE_FILES if name in by_name)]]


def fetch(hub: Hub, repo: str, wanted: str | None, folder: Path, progress: Progress | None) -> dict[str, str]:
    """Put the files of one checkpoint into `folder`, each checked; their names there, with their SHA-256."""
    targets = {file: folder / file.name.rpartition("/")[2] for file in choose(hub.files(repo), repo, wanted)}
    sums = {}
    for file, target in targets.items():
        if target.exists():
            sums[target.name] = digest(target)
            if not _is(file, target, sums[target.name]):  # of an earlier version
                target.unlink()
    missing = {file: target for file, target in targets.items() if not target.exists()}
    here = sum(size_of(target.with_name(f"{target.name}.part")) for target in missing.values())
    check_room(folder, sum(file.size or 0 for file in missing) - here, repo)
    for file, target in missing.items():
        sums[target.name] = hub.fetch(repo, file, target, progress)
        if not _is(file, target, sums[target.name]):
            target.unlink()
            raise DownloadError(f"{file.name} was damaged in transfer; it was deleted, fetch it again")
    return sums


def _is(file: RemoteFile, path: Path, sha256: str) -> bool:
    """Whether what is at `path`, of this SHA-256, is the file."""
    if file.size is not None and size_of(path) != file.size:
        return False
    if file.sha256 or not file.blob or size_of(path) > _LISTING:
        return file.sha256 in (None, sha256)
    text = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(text) + text, usedforsecurity=False).hexdigest() == file.blob
