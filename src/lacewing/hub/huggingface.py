"""Models of the Hugging Face hub: which files of a repository make one checkpoint, and fetching them."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lacewing.errors import DownloadError
from lacewing.hub.http import check
from lacewing.options import Progress

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,200}(/[A-Za-z0-9_][A-Za-z0-9._+-]{0,200}){0,4}")
_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
SIDE_FILES = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "chat_template.jinja", "chat_template.json", "vocab.json", "merges.txt", "tokenizer.model"),
)
_SECONDS = 8.0  # for the hub to answer


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository; small files have no SHA-256 there."""

    name: str
    size: int | None = None
    sha256: str | None = None


class Hub:
    """The hub itself, through huggingface-hub (its tokens, mirrors, proxies and resumed transfers are kept)."""

    def files(self, repo: str) -> list[RemoteFile]:
        """Raises DownloadError when there is no network, no such repository, or no permission."""
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        from huggingface_hub import HfApi

        try:
            found = HfApi().model_info(repo, files_metadata=True, timeout=_SECONDS).siblings or []
        except Exception as error:  # it raises its own, its HTTP client's and plain errors
            raise DownloadError(f"cannot get the repository {repo} from the hub: {_first_line(error)}") from error
        return [RemoteFile(file.rfilename, file.size, file.lfs.sha256 if file.lfs else None) for file in found]

    def address(self, repo: str, name: str) -> tuple[str, str | None]:
        """Where one file is, and the token to show there."""
        from huggingface_hub import get_token, hf_hub_url

        return hf_hub_url(repo, name), get_token()

    def fetch(self, repo: str, name: str, folder: Path, progress: Progress | None) -> None:
        """Put one file at `folder`/name. Raises DownloadError."""
        from huggingface_hub import hf_hub_download

        bar: dict[str, Any] = {"tqdm_class": _reporter(f"fetching {name}", progress)}
        if "tqdm_class" not in inspect.signature(hf_hub_download).parameters:  # an older one draws its own bar
            bar = {}
        try:
            hf_hub_download(repo, name, local_dir=folder, etag_timeout=_SECONDS, **bar)
        except Exception as error:
            raise DownloadError(f"fetching {name} of {repo} failed: {_first_line(error)}; run it again to continue") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _reporter(label: str, progress: Progress | None) -> Any:
    """A progress bar class for huggingface-hub that draws nothing and reports to `progress`."""
    tqdm: Any = importlib.import_module("huggingface_hub.utils").tqdm

    class Reporter(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any):
            options.pop("name", None)
            with open(os.devnull, "w") as nowhere:
                super().__init__(*args, **{**options, "file": nowhere, "disable": False, "mininterval": 1e9})

        def update(self, n: float | None = 1) -> bool | None:
            self.n += n or 0
            if progress is not None:
                progress(label, int(self.n), int(self.total or self.n))
            return None

        def refresh(self, *args: Any, **options: Any) -> None: ...

        def display(self, *args: Any, **options: Any) -> None: ...

        def close(self) -> None: ...

    return Reporter


def choose(files: Sequence[RemoteFile], repo: str, wanted: str | None) -> list[RemoteFile]:
    """The files that make one checkpoint: a GGUF file with all its splits, or safetensors with what goes with them.

    `wanted` is a file name or a quant such as Q4_K_M. Raises DownloadError with what there is to choose from.
    """
    by_name = {file.name: file for file in files if _NAME.fullmatch(file.name) and ".." not in file.name}
    models = [name for name in by_name if name.endswith(".gguf") and "mmproj" not in name.lower()]
    heads = sorted(name for name in models if not (match := _SPLIT.fullmatch(name)) or int(match["number"]) == 1)
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
            f"{repo} has no file for {wanted or 'a default'!r}; write hf:{repo}:FILE with one of {', '.join(heads) or 'none'}"
        )
    return _with_splits(by_name, matching[0])


def _with_splits(by_name: dict[str, RemoteFile], head: str) -> list[RemoteFile]:
    match = _SPLIT.fullmatch(head)
    if match is None:
        return [by_name[head]]
    names = [f"{match['stem']}-{number:05}-of-{match['count']}.gguf" for number in range(1, int(match["count"]) + 1)]
    missing = [name for name in names if name not in by_name]
    if missing:
        raise DownloadError(f"the repository has no {missing[0]}, a part of {head}")
    return [by_name[name] for name in names]


def _safetensors(by_name: dict[str, RemoteFile], repo: str) -> list[RemoteFile]:
    weights = sorted(name for name in by_name if "/" not in name and name.endswith(".safetensors"))
    index = [name for name in by_name if name == "model.safetensors.index.json"]
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


def fetch(hub: Hub, repo: str, wanted: str | None, folder: Path, progress: Progress | None) -> list[str]:
    """Put the files of one checkpoint into `folder`, each checked; their names there."""
    chosen = choose(hub.files(repo), repo, wanted)
    names = []
    for file in chosen:
        base = file.name.rsplit("/", 1)[-1]
        if not (folder / base).exists():
            hub.fetch(repo, file.name, folder, progress)
            os.replace(folder / file.name, folder / base)
        check(folder / base, file.size, file.sha256)
        names.append(base)
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # where huggingface-hub keeps its notes on unfinished files
    return names
